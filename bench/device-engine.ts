import { mkdtempSync, rmSync } from "node:fs";
import { entryDigests } from "../storage-node/store/entry-digest.ts";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Ballot } from "../common/ballot.ts";
import type { DeviceEngine } from "../storage-node/engine/device-engine.ts";
import { openDevice } from "../storage-node/engine/open-device.ts";
import { RowSpace } from "../storage-node/row-space.ts";
import type { Name, Row } from "../storage-node/wire.ts";

/**
 * The device engine alone, without HTTP, RPC or quorum:
 *
 *     bodies    puts of 4 KiB through one device
 *     rows      rows of 8 containers through one device
 *     objects   what one PUT of an object makes of it: a put of 4 KiB on 3 of 4 devices, then a row on 3 of 4
 *
 * by many appliers at once, new names first and then the same again, which compaction follows.
 * `node bench/device-engine.ts [bodies|rows|objects] [appliers] [count] [folder]`
 */
const [mode = "bodies", appliersText = "64", countText = "200000", parent = tmpdir()] = process.argv.slice(2, 6);
const appliers = Number(appliersText);
const count = Number(countText);
const folder = mkdtempSync(join(parent, "ringstead-bench-"));
const REPLICAS = 3;
const CONTAINERS = 8;
const value = Buffer.alloc(180, 1);
const bytes = Buffer.alloc(4096, 7);
const payload = Buffer.alloc(90, 2);

const keyOf = (number: number): Uint8Array => {
  const key = Buffer.alloc(70, 97);
  key.writeUInt32BE(Math.imul(number, 2_654_435_761) >>> 0, 0);
  key.writeUInt32BE(number, 4);
  return key;
};

const containerOf = (number: number): Name => {
  const place = number % CONTAINERS;
  return {
    space: "container",
    hash32: Math.imul(place, 2_654_435_761) >>> 0,
    path: `/AUTH_0123456789abcdef0123456789abcdef/c${place}`,
  };
};

const rowOf = (number: number, round: number): Row => ({
  name: `folder/object-${Math.imul(number, 2_654_435_761) >>> 0}-${number}`,
  version: `${"0".repeat(24)}${(round * count + number + 1).toString(16).padStart(24, "0")}` as Ballot,
  isDeleted: false,
  objects: 1,
  bytes: 4096,
  payload,
});

const devices: { readonly engine: DeviceEngine; readonly rows: RowSpace }[] = [];
for (let index = 0; index < (mode === "objects" ? REPLICAS + 1 : 1); index++) {
  const identity = { clusterId: "bench", node: "bench", device: `d${index}` };
  const engine = await openDevice({
    path: join(folder, identity.device),
    identity,
    digests: entryDigests(Buffer.alloc(32)),
  });
  devices.push({ engine, rows: new RowSpace(engine, [1n, 2n]) });
}

// Segments are allocated in the background at first; that belongs to no put.
for (let spares = -1, now = 0; spares !== now; ) {
  spares = now;
  await new Promise((resolve) => void setTimeout(resolve, 1000));
  now = devices.reduce((sum, { engine }) => sum + (engine.figures()["spares"] ?? 0), 0);
}

const putBody = (engine: DeviceEngine, number: number): Promise<void> =>
  engine.apply([{ kind: "put", key: keyOf(number), value, body: { kind: "bytes", bytes } }]);

const onReplicas = async (first: number, doing: (device: (typeof devices)[number]) => Promise<unknown>) => {
  const chosen = devices.filter((_, index) => index !== first % devices.length || devices.length === 1);
  await Promise.all(chosen.map(doing));
};

const runOne = async (number: number, round: number): Promise<void> => {
  if (mode !== "rows") await onReplicas(number, ({ engine }) => putBody(engine, number));
  if (mode === "bodies") return;
  const owner = containerOf(number);
  const row = rowOf(number, round);
  await onReplicas(owner.hash32, ({ rows }) => rows.put(owner, row));
};

for (let round = 0; round < 2; round++) {
  let next = 0;
  const latenciesMs = new Float64Array(count);
  const startedMs = performance.now();
  const startedCpu = process.cpuUsage();
  let worstAmplification = 0;
  const applier = async (): Promise<void> => {
    while (next < count) {
      const number = next++;
      const beganMs = performance.now();
      await runOne(number, round);
      latenciesMs[number] = performance.now() - beganMs;
      if (number % 1000 === 0) worstAmplification = Math.max(worstAmplification, amplification());
    }
  };
  await Promise.all(Array.from({ length: appliers }, applier));
  const seconds = (performance.now() - startedMs) / 1000;
  const cpu = process.cpuUsage(startedCpu);
  latenciesMs.sort();
  const figure = (name: string): number => devices.reduce((sum, { engine }) => sum + (engine.figures()[name] ?? 0), 0);
  console.log(
    JSON.stringify({
      mode,
      round: round === 0 ? "new names" : "the same names",
      appliers,
      count,
      perSecond: Math.round(count / seconds),
      cpuMicroseconds: Math.round((cpu.user + cpu.system) / count),
      p50Ms: Number(latenciesMs[Math.floor(count / 2)]?.toFixed(2)),
      p99Ms: Number(latenciesMs[Math.floor(count * 0.99)]?.toFixed(2)),
      worstAmplification: Number(worstAmplification.toFixed(2)),
      records: figure("records"),
      batches: figure("batches"),
      movedBytes: figure("movedBytes"),
      rssMib: Math.round(process.memoryUsage.rss() / 1_048_576),
    }),
  );
}
for (const { engine } of devices) await engine[Symbol.asyncDispose]();
rmSync(folder, { recursive: true });

/** The worst of the devices: log bytes per live byte. */
function amplification(): number {
  return Math.max(
    ...devices.map(({ engine }) => {
      const { usedBytes, liveBytes = 1 } = engine.figures();
      return usedBytes / Math.max(1, liveBytes);
    }),
  );
}
