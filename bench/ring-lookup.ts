import { addDevice, buildRing, createBuilder } from "../ring/builder.ts";
import { rebalance } from "../ring/rebalance.ts";
import { decodeRing, encodeRing } from "../ring/format.ts";
import { createRing } from "../ring/ring.ts";
import { seededRandom } from "../common/random.ts";

/** Prints lookups a second of a ring: partition → primaries alone, name → placement, both, and hand-offs. `node bench/ring-lookup.ts [POWER] [DEVICES]` */
const [power = 16, deviceCount = 60] = process.argv.slice(2).map(Number);
const MEASURE_MS = 1000;
const BATCH = 4096;

const builder = createBuilder({ partitionPower: power, replicas: 3, minPartHours: 1, seed: 1n });
for (let index = 0; index < deviceCount; index += 1)
  addDevice(builder, { region: 1, zone: index % 4, node: `n${index % 12}`, device: `d${index}`, weight: 100 });

const timed = <T>(what: string, work: () => T): T => {
  const startMs = performance.now();
  const result = work();
  console.log(`${what.padEnd(34)} ${(performance.now() - startMs).toFixed(1)} ms`);
  return result;
};
timed("first rebalance", () => rebalance(builder, { random: seededRandom(1n), nowMs: 0 }));
const bytes = encodeRing(buildRing(builder));
const ring = timed(`decode (${bytes.length} bytes) and build`, () => createRing(decodeRing(bytes)));

/** Keeps results alive, so that no lookup is optimised away. */
let sink = 0;
const measure = (what: string, lookup: (index: number) => number): void => {
  for (let index = 0; index < 4 * BATCH; index += 1) sink += lookup(index);
  let count = 0;
  const startMs = performance.now();
  let elapsedMs = 0;
  while (elapsedMs < MEASURE_MS) {
    for (let index = 0; index < BATCH; index += 1) sink += lookup(count + index);
    count += BATCH;
    elapsedMs = performance.now() - startMs;
  }
  console.log(`${what.padEnd(34)} ${Math.round((count / elapsedMs) * 1000).toLocaleString("en")} /s`);
};

const names = Array.from({ length: BATCH }, (_, index) => `some-folder/object-${index}`);
const account = "AUTH_0123456789abcdef0123456789abcdef";
const mask = ring.partitionCount - 1;
measure("partition → primaries", (index) => ring.primaries(Math.imul(index, 2654435761) & mask)[0]?.id ?? 0);
measure("hash32 → partition → primaries", (index) => {
  const partition = ring.partitionOfHash32(Math.imul(index, 2654435761) >>> 0);
  return ring.primaries(partition)[2]?.id ?? 0;
});
measure("name → placement", (index) => ring.placementOf(account, "container", names[index % BATCH]).hash32);
measure("name → primaries", (index) => {
  const { partition } = ring.placementOf(account, "container", names[index % BATCH]);
  return ring.primaries(partition)[0]?.id ?? 0;
});
measure("partition → first hand-off", (index) => {
  for (const device of ring.handoffs(index & mask)) return device.id;
  return 0;
});
if (sink === 0) console.log("nothing was looked up");
