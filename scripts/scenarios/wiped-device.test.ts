import { randomBytes } from "node:crypto";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readClusterKey } from "../../common/cluster-key.ts";
import { LOCAL_NODE } from "../../common/config.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import type { DeviceEngine } from "../../storage-node/engine/device-engine.ts";
import { openDevice } from "../../storage-node/engine/open-device.ts";
import { ballotOffsetsIn } from "../../storage-node/store/register-format.ts";
import { entryDigests } from "../../storage-node/store/entry-digest.ts";
import { isRegisterKey, spaceOfReplicated } from "../../storage-node/store/key-space.ts";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

const OBJECTS = 300;
const SMALL_BYTES = 4096;
/** Above what lies in the log: these have files of their own. */
const LARGE_BYTES = 3_000_000;
const LARGE_OBJECTS = 6;
/** Half a minute for forgotten promises, and what a loaded machine needs. */
const VOTES_WITHIN_MS = 90_000;

/** What a device of a stopped installation holds: each entry's key with the ballots of its value, and its body's bytes. */
const contentOf = async (folder: string, path: string): Promise<Map<string, string>> => {
  const paths = runtimePaths(folder);
  const identity = { clusterId: readFileSync(paths.clusterId, "utf8").trim(), node: LOCAL_NODE, device: "d2" };
  await using engine: DeviceEngine = await openDevice({ path, identity, digests: entryDigests(readClusterKey(paths)) });
  const content = new Map<string, string>();
  for (let gte: Uint8Array = Buffer.of(0); ; ) {
    const page = await engine.scan({ gte, lt: Buffer.alloc(5, 0xff), limit: 1000 });
    for (const { key, value } of page) {
      if (spaceOfReplicated(key) === undefined) continue;
      const entry = engine.get(key);
      const body = entry?.body ?? { kind: "none" };
      const bytes = await engine.readBody(body, 0, body.kind === "none" ? 0 : body.length);
      const stamps = isRegisterKey(key) ? ballotOffsetsIn(value) : [0];
      const ballots = stamps.map((at) => Buffer.from(value).toString("hex", at, at + 24));
      content.set(Buffer.from(key).toString("latin1"), `${ballots.join(" ")} ${Buffer.from(bytes).toString("base64")}`);
    }
    const last = page.at(-1)?.key;
    if (last === undefined || page.length < 1000) return content;
    gte = Buffer.concat([last, Buffer.of(0)]);
  }
};

type RepairOfDevice = {
  readonly device: string;
  readonly state: string;
  readonly progress: Readonly<Record<string, number>>;
};

const repairOf = async (installation: TestInstallation): Promise<{ paused: boolean; d2: RepairOfDevice }> => {
  const { code, output } = await installation.command("repair", "status", "--json");
  expect(code).toBe(0);
  const status: { paused: boolean; devices: RepairOfDevice[] } = JSON.parse(output);
  return { paused: status.paused, d2: status.devices.find(({ device }) => device === "d2")! };
};

test("a device that was emptied gets everything back while clients go on, votes again, and is as good as before", async () => {
  await using installation = new TestInstallation(["--only", "object"]);
  const device = (name: string): string => join(installation.folder, "devices", name);
  let client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  const contents = new Map<string, Buffer<ArrayBuffer>>();
  const put = async (path: string, sizeBytes: number): Promise<void> => {
    const bytes = randomBytes(sizeBytes);
    expect((await client.request("PUT", path, { body: bytes })).status).toBe(201);
    contents.set(path, bytes);
  };
  const containers = ["/c0", "/c1", "/c2", "/c3"];
  for (const container of containers) expect((await client.request("PUT", container)).status).toBe(201);
  const paths = Array.from({ length: OBJECTS }, (_, index) => `${containers[index % containers.length]}/o${index}`);
  for (const path of paths) await put(path, SMALL_BYTES);
  for (let index = 0; index < LARGE_OBJECTS; index++) await put(`/c0/large${index}`, LARGE_BYTES);
  for (const path of paths.slice(0, 10)) {
    expect((await client.request("DELETE", path)).status).toBe(204);
    contents.delete(path);
  }

  expect((await installation.command("repair", "pause")).output).toContain("repair is paused");
  await installation.command("down");
  const kept = join(installation.folder, "d2-before");
  renameSync(device("d2"), kept);
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  const paused = await repairOf(installation);
  expect(paused.paused).toBe(true);
  expect(paused.d2).toMatchObject({ state: "catching-up", progress: { repairedEntries: 0 } });
  expect(paused.d2.progress["entriesLeft"]).toBeGreaterThan(0);
  const degraded = await installation.command("status");
  expect(degraded.code).toBe(1);
  expect(degraded.output).toMatch(/PROBLEM +device d2 .* does not vote yet in [\d,]+ partitions/);
  expect(degraded.output).toMatch(/warning +repair is paused/);

  expect((await installation.command("repair", "resume")).code).toBe(0);
  let isOver = false;
  const load = (async () => {
    for (let index = 0; !isOver; index++) {
      await put(`/c1/meanwhile${index}`, SMALL_BYTES);
      const path = paths[10 + (index % (OBJECTS - 10))]!;
      expect((await client.request("GET", path)).bytes.equals(contents.get(path)!)).toBe(true);
      await new Promise((resolve) => void setTimeout(resolve, 20));
    }
  })();
  try {
    await expect
      .poll(async () => (await repairOf(installation)).d2.state, { timeout: VOTES_WITHIN_MS, interval: 1000 })
      .toBe("served");
  } finally {
    isOver = true;
    await load;
  }
  const { d2 } = await repairOf(installation);
  expect(d2.progress["repairedEntries"]).toBeGreaterThan(OBJECTS / 2);
  expect(d2.progress["joiningPartitions"]).toBe(0);
  expect((await installation.command("status")).code).toBe(0);
  await installation.command("down");

  const before = await contentOf(installation.folder, kept);
  const after = await contentOf(installation.folder, device("d2"));
  const rowsOfAccounts = (key: string): boolean => spaceOfReplicated(Buffer.from(key, "latin1")) === "account";
  expect(before.size).toBeGreaterThan(OBJECTS / 2);
  for (const [key, content] of before) {
    // The account's rows say how much the containers hold, which has changed meanwhile.
    if (rowsOfAccounts(key)) expect(after.has(key)).toBe(true);
    else expect(after.get(key), key).toBe(content);
  }

  // Without d1, what is on d1, d2 and one more can only be read with the vote of d2.
  renameSync(join(device("d1"), "log"), join(device("d1"), "log.away"));
  writeFileSync(join(device("d1"), "log"), "");
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  for (const [path, bytes] of contents) {
    const { status, bytes: found } = await client.request("GET", path);
    expect(status, path).toBe(200);
    expect(found.equals(bytes), path).toBe(true);
  }
  for (const path of paths.slice(0, 10)) expect((await client.request("GET", path)).status, path).toBe(404);
  rmSync(kept, { recursive: true });
});
