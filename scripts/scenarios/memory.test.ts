import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sleep } from "../../common/worker.ts";
import { TestInstallation } from "./installation.ts";
import { isEverything } from "./is-everything.ts";
import { ObjectClient } from "./object-client.ts";

const MIB = 1024 * 1024;
/** What the process of the proxy, and that of the storage node, may have of anonymous memory. */
const LIMIT_MIB = 300;
const SAMPLE_MS = 100;
/** A slow client takes so much each second. */
const SLOW_BYTES_PER_SECOND = 256 * 1024;

const installation = new TestInstallation(["--only", "object"]);
const agent = new Agent({ keepAlive: false });
let client: ObjectClient;

beforeAll(async () => {
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  expect((await client.request("PUT", "/bodies")).status).toBe(201);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

const BLOCK = randomBytes(MIB);

/** Sends `sizeBytes` as fast as they are taken; gives the status. */
const upload = (name: string, sizeBytes: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const headers = { "x-auth-token": client.token, "content-length": sizeBytes };
    const request = httpRequest(`${client.url}/bodies/${name}`, { method: "PUT", headers, agent }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode ?? 0));
    });
    request.once("error", reject);
    let sent = 0;
    const more = (): void => {
      while (sent < sizeBytes) {
        const block = BLOCK.subarray(0, Math.min(BLOCK.length, sizeBytes - sent));
        sent += block.length;
        if (!request.write(block)) {
          request.once("drain", more);
          return;
        }
      }
      request.end();
    };
    more();
  });

const open = (name: string): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const request = httpRequest(
      `${client.url}/bodies/${name}`,
      { headers: { "x-auth-token": client.token }, agent },
      resolve,
    );
    request.once("error", reject);
    request.end();
  });

/** Reads a body to its end, and gives how many bytes came. */
const download = async (name: string): Promise<number> => {
  const response = await open(name);
  expect(response.statusCode).toBe(200);
  let received = 0;
  for await (const chunk of response) received += (chunk as Buffer).length;
  return received;
};

/** Reads at the pace of a slow client until the body or the test is over, then hangs up; gives how many bytes came. */
const downloadSlowly = async (name: string, over: AbortSignal): Promise<number> => {
  const response = await open(name);
  expect(response.statusCode).toBe(200);
  let received = 0;
  const startMs = performance.now();
  for await (const chunk of response) {
    received += (chunk as Buffer).length;
    const aheadMs = (received / SLOW_BYTES_PER_SECOND) * 1000 - (performance.now() - startMs);
    if (aheadMs > 0) await sleep(aheadMs, over);
    if (over.aborted) break;
  }
  response.destroy();
  return received;
};

const anonymousMib = (pid: number): number => {
  const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (line?.[1] === undefined) throw new Error(`/proc/${pid}/status has no RssAnon`);
  return Number(line[1]) / 1024;
};

/** Runs `load` and gives the most anonymous memory that each of the two processes had meanwhile, in MiB. */
const mostMemoryDuring = async (
  load: () => Promise<void>,
): Promise<{ readonly proxy: number; readonly storage: number }> => {
  const pidOf = (role: string): number => installation.ready().processes.find((process) => process.role === role)!.pid;
  const [proxyPid, storagePid] = [pidOf("proxy"), pidOf("storage-node")];
  let proxy = 0;
  let storage = 0;
  const sampler = setInterval(() => {
    proxy = Math.max(proxy, anonymousMib(proxyPid));
    storage = Math.max(storage, anonymousMib(storagePid));
  }, SAMPLE_MS);
  try {
    await load();
  } finally {
    clearInterval(sampler);
  }
  expect([proxyPid, storagePid]).toEqual([pidOf("proxy"), pidOf("storage-node")]);
  process.stdout.write(
    `most anonymous memory: proxy ${proxy.toFixed(0)} MiB, storage-node ${storage.toFixed(0)} MiB\n`,
  );
  return { proxy, storage };
};

const expectBounded = ({ proxy, storage }: { readonly proxy: number; readonly storage: number }): void => {
  expect(proxy).toBeGreaterThan(0);
  expect(proxy).toBeLessThan(LIMIT_MIB);
  expect(storage).toBeLessThan(LIMIT_MIB);
};

/** `count` uploads and as many downloads at once, every second download by a slow client. */
const transfer = async (count: number, sizeBytes: number): Promise<void> => {
  const numbers = Array.from({ length: count }, (_, index) => index);
  const sources = Math.min(count, 8);
  for (const index of numbers.slice(0, sources)) expect(await upload(`source-${index}`, sizeBytes)).toBe(201);
  const over = new AbortController();
  const slow = numbers
    .filter((index) => index % 2 === 1)
    .map((index) => downloadSlowly(`source-${index % sources}`, over.signal));
  const fast = numbers.filter((index) => index % 2 === 0).map((index) => download(`source-${index % sources}`));
  const uploads = numbers.map((index) => upload(`target-${index}`, sizeBytes));
  expect(await Promise.all(uploads)).toEqual(numbers.map(() => 201));
  expect(await Promise.all(fast)).toEqual(fast.map(() => sizeBytes));
  over.abort();
  for (const received of await Promise.all(slow)) expect(received).toBeGreaterThan(0);
};

test("16 uploads and 16 downloads of 16 MiB, half of them slow, stay within the memory limit", async () => {
  expectBounded(await mostMemoryDuring(() => transfer(16, 16 * MIB)));
});

// The sizes that the promise names: minutes, and some 40 GiB of disk.
test.runIf(isEverything)(
  "64 uploads and 64 downloads of 128 MiB, half of them slow, stay within the memory limit",
  async () => {
    expectBounded(await mostMemoryDuring(() => transfer(64, 128 * MIB)));
  },
);

test.runIf(isEverything)("one upload of 5 GiB stays within the memory limit", async () => {
  expectBounded(
    await mostMemoryDuring(async () => {
      expect(await upload("huge", 5 * 1024 * MIB)).toBe(201);
    }),
  );
});
