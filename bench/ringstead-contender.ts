import { execFile, execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { freePortOffset } from "../common/free-ports.ts";
import { type Contender, loginV1 } from "./contender.ts";
import type { IdentityContender } from "./identity-contender.ts";

const CHECKOUT = resolve(import.meta.dirname, "..");
const START_LIMIT_MS = 300_000;

const run = promisify(execFile);

/** What the bench reads of DIR/ready.json (DESIGN section 2). */
type Ready = {
  readonly version: string;
  readonly endpoints: { readonly identity: string };
  readonly admin: IdentityContender["admin"];
  readonly swiftAuthV1: { readonly url: string; readonly user: string; readonly key: string };
  readonly processes: readonly { readonly pid: number }[];
};

/** The commit of this checkout, with `-dirty` where files differ from it. */
export const commitOf = (): string => {
  try {
    const words = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"];
    return execFileSync("git", words, { cwd: CHECKOUT, encoding: "utf8", stdio: "pipe" }).trim();
  } catch {
    return "unknown";
  }
};

/** A running installation. */
type Installation = Pick<Contender, "name" | "version" | "processes" | typeof Symbol.asyncDispose> & {
  readonly dataDir: string;
  ready(): Ready;
};

/** An object store with the identity service that it asks. */
export type RingsteadStore = Contender &
  Pick<Installation, "dataDir"> & { readonly identity: Pick<IdentityContender, "endpoint" | "admin"> };

/** Starts this checkout as a user would, with its data below `folder` and the services `only`. */
const install = async (folder: string, only: string): Promise<Installation> => {
  const dataDir = join(folder, "ringstead");
  const offset = await freePortOffset();
  const words = ["--data", dataDir, "--detach", "--only", only, "--port-offset", String(offset)];
  const stop = async (): Promise<void> => {
    await run(join(CHECKOUT, "scripts", "ringstead"), ["down", "--data", dataDir]);
    rmSync(dataDir, { recursive: true, force: true });
  };
  try {
    await run(join(CHECKOUT, "scripts", "start"), words, { timeout: START_LIMIT_MS });
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  const ready = (): Ready => JSON.parse(readFileSync(join(dataDir, "ready.json"), "utf8"));
  return {
    name: "Ringstead",
    version: `${ready().version} (${commitOf()})`,
    dataDir,
    ready,
    processes: () => ready().processes.map(({ pid }) => pid),
    [Symbol.asyncDispose]: stop,
  };
};

/** Starts the object store of this checkout. */
export const startRingstead = async (folder: string): Promise<RingsteadStore> => {
  const installation = await install(folder, "object");
  const { endpoints, admin } = installation.ready();
  return {
    ...installation,
    identity: { endpoint: endpoints.identity, admin },
    login: () => {
      const { url, user, key } = installation.ready().swiftAuthV1;
      return loginV1(url, user, key);
    },
  };
};

/** Starts identity alone of this checkout. */
export const startRingsteadIdentity = async (folder: string): Promise<IdentityContender> => {
  const installation = await install(folder, "identity");
  const { endpoints, admin } = installation.ready();
  return { ...installation, endpoint: endpoints.identity, admin };
};
