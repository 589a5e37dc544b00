import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../common/ballot.ts";
import { systemClock } from "../common/clock.ts";
import { type ClusterConfig, deviceName, LOCAL_NODE, resolveConfig } from "../common/config.ts";
import type { HybridTimestamp } from "../common/hybrid-clock.ts";
import { silentLog } from "../common/log.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { loadBuilder, saveBuilder } from "../ring/builder-file.ts";
import { buildRing, setWeight } from "../ring/builder.ts";
import { ringCommand } from "../ring/command.ts";
import type { Ring } from "../ring/ring.ts";
import { loadRing } from "../ring/ring-file.ts";
import { setReplicas } from "../ring/set-replicas.ts";
import { DeviceReplica } from "../storage-node/device-replica.ts";
import type { NewBody } from "../storage-node/engine/device-engine.ts";
import { openDevice } from "../storage-node/engine/open-device.ts";
import { rowKey } from "../storage-node/store/keys.ts";
import type { Name, Space } from "../storage-node/wire.ts";
import { moveReplicas } from "./device-moves.ts";
import { entryDigests } from "../storage-node/store/entry-digest.ts";
import { movesBetween } from "./replica-moves.ts";
import { checkRings, prepareRings } from "./rings.ts";

const CLUSTER_ID = "11111111-2222-3333-4444-555555555555";
const DIGESTS = entryDigests(Buffer.alloc(32));
const SEEDS = [1n, 2n] as const;
const NAME_COUNT = 60;
/** Every step opens all devices, each with a recovery of its own. */
const TIMEOUT_MS = 180_000;
const ALL = ["storage-node", "proxy", "identity"];
const LARGE_BYTES = 300_000;

let folder = "";
let paths: RuntimePaths;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-rings-"));
  paths = runtimePaths(folder);
  writeFileSync(paths.clusterId, `${CLUSTER_ID}\n`);
  writeFileSync(paths.clusterKey, `${"00".repeat(32)}\n`);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const configOf = (devices: number): ClusterConfig =>
  resolveConfig({ devices, partition_power: 5 }, folder, LOCAL_NODE, "host");

const ring = (name = "object-0"): Ring => loadRing(paths.ringFile(name));

const nameOf = (space: Space, account: string, container: string, object?: string): Name => {
  const { hash32 } = ring(space === "object" ? "object-0" : space).placementOf(account, container, object);
  return { space, hash32, path: `/${account}/${container}${object === undefined ? "" : `/${object}`}` };
};

const replicasOf = (name: Name): string[] => {
  const of = ring(name.space === "object" ? "object-0" : name.space);
  return of.primaries(of.partitionOfHash32(name.hash32)).map(({ device }) => device);
};

/** Runs `work` with every device open, as a storage node has them. */
const withDevices = async (
  count: number,
  work: (replicas: ReadonlyMap<string, DeviceReplica>) => Promise<void>,
): Promise<void> => {
  await using stack = new AsyncDisposableStack();
  const replicas = new Map<string, DeviceReplica>();
  for (let index = 0; index < count; index++) {
    const device = deviceName(index);
    const path = join(paths.devicesDir, device);
    mkdirSync(path, { recursive: true });
    const identity = { clusterId: CLUSTER_ID, node: LOCAL_NODE, device };
    const engine = stack.use(await openDevice({ path, identity, digests: DIGESTS }));
    replicas.set(device, new DeviceReplica(engine, systemClock, SEEDS));
  }
  await work(replicas);
};

const ballotAt = (ms: number): Ballot =>
  ballotOf(NO_INCARNATION, `${ms.toString(16).padStart(12, "0")}0000` as HybridTimestamp, "00000001");

const nowMs = Date.now();
const OLD = ballotAt(nowMs - 2000);
const NEW = ballotAt(nowMs - 1000);
const bodyOf = (index: number, version: Ballot): Buffer =>
  Buffer.alloc(index % 10 === 0 ? LARGE_BYTES : 100 + index, `${index} ${version} `);

const write = async (replica: DeviceReplica, name: Name, index: number, version: Ballot): Promise<void> => {
  const bytes = bodyOf(index, version);
  let body: NewBody = { kind: "bytes", bytes };
  if (bytes.length === LARGE_BYTES) {
    const staged = await replica.engine.stage();
    await staged.write(bytes);
    body = { kind: "staged", file: staged.file, length: await staged.seal() };
  }
  const proposal = {
    bodyVersion: version,
    isTombstone: false,
    bodyLength: bytes.length,
    metadata: Buffer.from(`{"n":${index}}`),
    body: body.kind === "staged" ? ("staged" as const) : ("inline" as const),
  };
  expect((await replica.accept(name, version, version, proposal, body, [])).kind).toBe("accepted");
};

const names = (): Name[] => Array.from({ length: NAME_COUNT }, (_, index) => nameOf("object", "a", "c", `o${index}`));

/** Each name's first version is on all replicas, its acknowledged second one on a bare quorum; rows likewise. */
const fill = (deviceCount: number): Promise<void> =>
  withDevices(deviceCount, async (replicas) => {
    for (const [index, name] of names().entries()) {
      const holders = replicasOf(name).map((device) => replicas.get(device)!);
      for (const holder of holders) await write(holder, name, index, OLD);
      for (const holder of holders.filter((_holder, slot) => slot !== index % holders.length))
        await write(holder, name, index, NEW);
    }
    for (const [space, owner] of [
      ["container", nameOf("container", "a", "c")],
      ["account", { ...nameOf("account", "a", ""), path: "/a" }],
    ] as const) {
      const holders = space === "container" ? replicasOf(owner) : replicasOf({ ...owner, space });
      for (const device of holders.slice(1)) {
        const put = { kind: "put", value: Buffer.from(space), body: { kind: "none" } } as const;
        await replicas.get(device)!.engine.apply([{ ...put, key: rowKey(owner, `row of ${space}/x`, false) }]);
      }
    }
  });

/** Any read quorum of the present ring finds the newest version of every name, and a replica that has its bytes. */
const expectReadable = (deviceCount: number): Promise<void> =>
  withDevices(deviceCount, async (replicas) => {
    for (const [index, name] of names().entries()) {
      const found = await Promise.all(replicasOf(name).map((device) => replicas.get(device)!.read(name)));
      for (const left of [0, 1, 2]) {
        const quorum = found.filter((_answer, slot) => slot !== left);
        expect(Math.max(...quorum.map((answer) => (answer?.register.version === NEW ? 1 : 0))), name.path).toBe(1);
      }
      for (const [slot, device] of replicasOf(name).entries()) {
        const answer = found[slot];
        if (answer?.register.version !== NEW) continue;
        const expected = bodyOf(index, NEW);
        const bytes = await replicas.get(device)!.engine.readBody(answer.body, 0, expected.length);
        expect(Buffer.from(bytes).equals(expected), `${name.path} on ${device}`).toBe(true);
      }
    }
    const rowsOf = (owner: Name, space: Space): (string | undefined)[] =>
      replicasOf({ ...owner, space }).map((device) => {
        const row = replicas.get(device)!.engine.get(rowKey(owner, `row of ${space}/x`, false));
        return row === undefined ? undefined : Buffer.from(row.value).toString();
      });
    expect(rowsOf(nameOf("container", "a", "c"), "container").filter(Boolean)).toEqual(["container", "container"]);
    expect(rowsOf({ ...nameOf("account", "a", ""), path: "/a" }, "account").filter(Boolean)).toEqual([
      "account",
      "account",
    ]);
  });

const keyCount = async (deviceCount: number): Promise<number> => {
  let count = 0;
  await withDevices(deviceCount, async (replicas) => {
    for (const { engine } of replicas.values()) {
      const range = { gte: Buffer.from([0]), lt: Buffer.alloc(5, 0xff), limit: 10_000 };
      // The fifth byte of a device's own key is below every other kind.
      for (const { key } of await engine.scan(range)) if ((key[4] ?? 0) > 0x40) count += 1;
    }
  });
  return count;
};

const grow = (devices: number): Promise<number> => {
  const config = configOf(devices);
  for (const path of config.devices) mkdirSync(path, { recursive: true });
  checkRings(paths, config, ALL);
  return prepareRings(paths, config, silentLog);
};

describe("devices that are added", { timeout: TIMEOUT_MS }, () => {
  it("get whole replicas, so that every read quorum finds what it found before, after a second growth too", async () => {
    await grow(4);
    await fill(4);
    const before = ring();
    const keys = await keyCount(4);
    expect(await grow(7)).toBe(3);
    expect(movesBetween("object", before, ring()).length).toBeGreaterThan(10);
    await expectReadable(7);
    expect(await grow(9)).toBe(2);
    await expectReadable(9);
    // What moved is gone from where it was.
    expect(await keyCount(9)).toBe(keys);
    const held = Object.groupBy(ring().assignments, (id) => id);
    for (const slots of Object.values(held)) expect(slots!.length).toBeGreaterThan((32 * 3) / 9 - 2);
  });

  it("change nothing that counts until all is copied: a crash in between leaves the old ring with its data", async () => {
    await grow(3);
    await fill(3);
    const before = ring();
    const config = configOf(5);
    for (const path of config.devices) mkdirSync(path, { recursive: true });
    const planned = await plannedRing(5);
    const crash = new Error("power cut");
    const moves = movesBetween("object", before, planned);
    expect(moves.length).toBeGreaterThan(0);
    await expect(
      moveReplicas(moves, config, { clusterId: CLUSTER_ID, digests: DIGESTS }, silentLog, () => {
        throw crash;
      }),
    ).rejects.toBe(crash);
    expect(ring().version).toBe(before.version);
    await expectReadable(3);
    expect(await grow(5)).toBe(2);
    await expectReadable(5);
  });
});

/** The object ring as an operator's commands would make it, without the ring file. */
const plannedRing = async (devices: number): Promise<Ring> => {
  const file = paths.builderFile("object-0");
  const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };
  const had = loadBuilder(file);
  for (let index = had.devices.length; index < devices; index++) {
    const place = ["--node", LOCAL_NODE, "--device", deviceName(index), "--weight", "100"];
    expect(await ringCommand(["add", file, ...place], quiet)).toBe(0);
  }
  expect(await ringCommand(["rebalance", file, "--force", "--plan"], quiet)).toBe(0);
  return buildRing(loadBuilder(file));
};

it("a device that is to go is emptied by the next start, after a planned change of its weight", {
  timeout: TIMEOUT_MS,
}, async () => {
  await grow(5);
  await fill(5);
  for (const name of ["object-0", "container", "account"]) {
    const file = paths.builderFile(name);
    const builder = loadBuilder(file);
    setWeight(builder, 4, 0);
    saveBuilder(file, builder);
    const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };
    expect(await ringCommand(["rebalance", file, "--force", "--plan"], quiet)).toBe(0);
  }
  expect(() => checkRings(paths, configOf(4), ALL)).toThrow(
    "has 5 devices, 4 are asked for: take the last one out first",
  );
  await prepareRings(paths, configOf(5), silentLog);
  expect(ring().assignments.includes(4)).toBe(false);
  await expectReadable(5);
});

it("a data move that meets a device of another node with the same name is refused, and all is as it was", {
  timeout: TIMEOUT_MS,
}, async () => {
  await grow(3);
  await fill(3);
  const before = ring();
  const file = paths.builderFile("object-0");
  const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };
  await ringCommand(["add", file, "--node", "elsewhere", "--device", "d1", "--weight", "300"], quiet);
  await ringCommand(["rebalance", file, "--force", "--plan"], quiet);
  await expect(prepareRings(paths, configOf(3), silentLog)).rejects.toThrow(
    "this version moves data only between the devices of one node",
  );
  expect(ring().version).toBe(before.version);
  await expectReadable(3);
});

it("a start takes over a higher partition power, and every read quorum finds what it found before", {
  timeout: TIMEOUT_MS,
}, async () => {
  await grow(4);
  await fill(4);
  const quiet = { out: () => {}, error: (text: string) => expect.fail(text) };
  for (const name of ["object-0", "container", "account"])
    expect(await ringCommand(["increase-part-power", paths.builderFile(name), "--plan"], quiet)).toBe(0);
  expect(ring().partitionPower).toBe(5);
  await grow(4);
  expect(ring()).toMatchObject({ partitionPower: 6, partitionCount: 64 });
  await expectReadable(4);
  // Data moves at the new power as it did at the old one.
  await grow(6);
  await expectReadable(6);
});

it("a start refuses a planned replica count, which it cannot bring about, and says how to take it back", async () => {
  await grow(4);
  const file = paths.builderFile("container");
  const builder = loadBuilder(file);
  setReplicas(builder, 2.5);
  saveBuilder(file, builder);
  expect(() => checkRings(paths, configOf(4), ALL)).toThrowError(
    expect.objectContaining({
      code: "replicas-refused",
      message: expect.stringContaining(`${file} plans 2.5 replicas, ${paths.dataDir} keeps 3`),
    }),
  );
  await expect(prepareRings(paths, configOf(4), silentLog)).rejects.toMatchObject({ code: "replicas-refused" });
  expect(ring("container").replicas).toBe(3);
});

it("two starts of one installation make its rings once", async () => {
  await grow(4);
  const versions = ["object-0", "container", "account"].map((name) => ring(name).version);
  expect(await grow(4)).toBe(0);
  expect(["object-0", "container", "account"].map((name) => ring(name).version)).toEqual(versions);
});
