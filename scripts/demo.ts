import { createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { volumeSteps } from "./demo-volume.ts";
import { logInAsAdmin, readReady } from "./admin-login.ts";
import type { ReadyFile } from "./ready-file.ts";
import { CHECKOUT, dataDirOf, parseOptions } from "./up-options.ts";

const BIG_BYTES = 8 * 1024 * 1024;

type Session = { readonly storageUrl: string; readonly token: string };

const expectStatus = (response: Response, wanted: readonly number[], what: string): void => {
  if (!wanted.includes(response.status)) throw new Error(`${what} answered ${response.status} ${response.statusText}`);
};

const expectSame = (what: string, given: unknown, wanted: unknown): void => {
  if (given !== wanted) throw new Error(`${what} is ${String(given)}, should be ${String(wanted)}`);
};

const logIn = async (ready: ReadyFile): Promise<Session> => {
  const { token, objectUrl: storageUrl } = await logInAsAdmin(ready);
  if (storageUrl === undefined) throw new Error("the catalog names no object store");
  return { storageUrl, token };
};

const call = (
  { storageUrl, token }: Session,
  method: string,
  path: string,
  body?: Uint8Array<ArrayBuffer>,
): Promise<Response> =>
  fetch(`${storageUrl}${path}`, {
    method,
    headers: { "x-auth-token": token },
    ...(body === undefined ? {} : { body }),
  });

const storeAndReadBack = async (session: Session, path: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> => {
  const etag = createHash("md5").update(bytes).digest("hex");
  const put = await call(session, "PUT", path, bytes);
  expectStatus(put, [201], `PUT ${path}`);
  expectSame("the ETag", put.headers.get("etag")?.replaceAll('"', ""), etag);
  const get = await call(session, "GET", path);
  expectStatus(get, [200], `GET ${path}`);
  const read = Buffer.from(await get.arrayBuffer());
  expectSame("what came back", createHash("md5").update(read).digest("hex"), etag);
};

/** The main job, as far as this version's services do it; each step throws if it does not hold. */
const objectSteps = (ready: ReadyFile): readonly { readonly says: string; run(): Promise<void> }[] => {
  const container = `/demo-${Date.now()}`;
  const readme = new Uint8Array(readFileSync(`${CHECKOUT}/README.md`));
  const big = new Uint8Array(randomBytes(BIG_BYTES));
  let session: Session | undefined;
  const logged = (): Session => {
    if (session === undefined) throw new Error("there is no session: the login failed");
    return session;
  };
  return [
    {
      says: `log in as admin at ${ready.endpoints.identity}`,
      run: async () => {
        session = await logIn(ready);
      },
    },
    {
      says: `make the container ${container.slice(1)}`,
      run: async () => expectStatus(await call(logged(), "PUT", container), [201, 202], "PUT of the container"),
    },
    {
      says: `store README.md (${readme.length} bytes), read it back, compare`,
      run: () => storeAndReadBack(logged(), `${container}/README.md`, readme),
    },
    {
      says: "store 8 MiB of random bytes, read them back, compare",
      run: () => storeAndReadBack(logged(), `${container}/random.bin`, big),
    },
    {
      says: "list the container: both names are there at once",
      run: async () => {
        const listing = await call(logged(), "GET", container);
        expectStatus(listing, [200], "the listing");
        expectSame("the listing", await listing.text(), "README.md\nrandom.bin\n");
      },
    },
    {
      says: "delete everything again",
      run: async () => {
        for (const name of ["/README.md", "/random.bin", ""]) {
          expectStatus(await call(logged(), "DELETE", `${container}${name}`), [204], `DELETE ${container}${name}`);
        }
      },
    },
  ];
};

/** Asks the block service as `admin`. */
const blockCaller = (ready: ReadyFile) => {
  let session: Promise<Session> | undefined;
  return async (method: string, path: string, body?: object): Promise<unknown> => {
    session ??= logIn(ready);
    const { token } = await session;
    const response = await fetch(`${ready.endpoints.block}${path}`, {
      method,
      headers: { "x-auth-token": token, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (response.status === 404) return undefined;
    expectStatus(response, [200, 202], `${method} ${path} (${text.slice(0, 200)})`);
    return text === "" ? undefined : JSON.parse(text);
  };
};

/** `ringstead demo`: exit 0 only if every step held. */
export const demo = async (argv: readonly string[]): Promise<number> => {
  const { values } = parseOptions(argv, { data: { type: "string" } });
  const dataDir = dataDirOf(values.data);
  const ready = readReady(dataDir);
  let failed = 0;
  if (ready.endpoints.object === undefined)
    throw new RingsteadError("not-running", "the object service does not run (--only): nothing to show");
  const hasVolumes = ready.endpoints.block !== undefined;
  for (const step of [
    ...objectSteps(ready),
    ...(hasVolumes ? volumeSteps(blockCaller(ready), runtimePaths(dataDir)) : []),
  ]) {
    try {
      await step.run();
      process.stdout.write(`ok      ${step.says}\n`);
    } catch (thrown) {
      failed += 1;
      process.stdout.write(`FAILED  ${step.says}: ${messageOf(thrown)}\n`);
    }
  }
  const later = [
    ...(hasVolumes ? [] : [{ service: "block", says: "make a volume and write to it over NBD" }]),
    { service: "compute", says: "boot a server from an image in the object store, attach the volume" },
  ];
  for (const { service, says } of later) {
    const why = ready.unavailable.find((one) => one.service === service)?.reason;
    process.stdout.write(
      `skipped ${says}: ${why ?? `the demo of this version does not know the ${service} service`}\n`,
    );
  }
  return failed === 0 ? 0 : 1;
};
