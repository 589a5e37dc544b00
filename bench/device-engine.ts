import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDevice } from "../storage-node/engine/open-device.ts";

/**
 * Puts of 4 KiB through one device, by many appliers at once, then the same keys again, which compaction follows.
 * `node bench/device-engine.ts [appliers] [puts] [folder]`
 */
const [appliers = 64, puts = 200_000] = process.argv.slice(2, 4).map(Number);
const folder = mkdtempSync(join(process.argv[4] ?? tmpdir(), "ringstead-bench-"));
const value = Buffer.alloc(180, 1);
const bytes = Buffer.alloc(4096, 7);

const keyOf = (number: number): Uint8Array => {
  const key = Buffer.alloc(70, 97);
  key.writeUInt32BE(Math.imul(number, 2_654_435_761) >>> 0, 0);
  key.writeUInt32BE(number, 4);
  return key;
};

const device = await openDevice({
  path: join(folder, "d1"),
  identity: { clusterId: "bench", node: "bench", device: "d1" },
});
for (const round of ["new keys", "the same keys"]) {
  let next = 0;
  const startedMs = performance.now();
  const startedCpu = process.cpuUsage();
  const applier = async (): Promise<void> => {
    while (next < puts)
      await device.apply([{ kind: "put", key: keyOf(next++), value, body: { kind: "bytes", bytes } }]);
  };
  await Promise.all(Array.from({ length: appliers }, applier));
  const seconds = (performance.now() - startedMs) / 1000;
  const cpu = process.cpuUsage(startedCpu);
  const perSecond = Math.round(puts / seconds);
  const cpuMicroseconds = Math.round((cpu.user + cpu.system) / puts);
  console.log(JSON.stringify({ round, appliers, puts, perSecond, cpuMicroseconds, ...device.figures() }));
}
await device[Symbol.asyncDispose]();
rmSync(folder, { recursive: true });
