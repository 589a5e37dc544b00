import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { Scrubber } from "../storage-node/daemons/scrubber.ts";
import { scrubRecordFile } from "../storage-node/daemons/scrubber-position.ts";
import type { DeviceEngine } from "../storage-node/engine/device-engine.ts";
import { DirectReader } from "../storage-node/engine/direct-reader.ts";
import { openDevice } from "../storage-node/engine/open-device.ts";
import { realDisk } from "../storage-node/engine/real-disk.ts";
import { entryDigests } from "../storage-node/store/entry-digest.ts";

/**
 * How fast a device is read from end to end and checked: `node bench/scrub.ts [count] [large] [folder]`, by default 200,000 small objects
 * of 4 KiB and 1,024 MiB of large bodies of 64 MiB each, in the system's temporary folder. Each part is scrubbed alone, then both; beside
 * it the same files read past the page cache and not looked at, which is what the disk allows. One line of JSON a run.
 */
const REACH_BYTES_PER_SECOND = 400_000_000;
const RUNS = 3;
const SMALL_BYTES = 4096;
const LARGE_BYTES = 64 * 1024 * 1024;
const APPLIERS = 64;
const VALUE_BYTES = 180;

const [countText = "200000", largeText = "1024", parent = tmpdir()] = process.argv.slice(2, 5);
const count = Number(countText);
const largeCount = Math.ceil((Number(largeText) * 1024 * 1024) / LARGE_BYTES);
const folder = mkdtempSync(join(parent, "ringstead-bench-"));
const silent = { info: () => {}, warn: () => {}, error: () => {}, child: () => silent };

const openAt = (device: string): Promise<DeviceEngine> =>
  openDevice({
    path: join(folder, device),
    identity: { clusterId: "bench", node: "bench", device },
    digests: entryDigests(Buffer.alloc(32)),
  });

const keyOf = (number: number): Buffer => {
  const key = Buffer.alloc(70, 97);
  key.writeUInt32BE(Math.imul(number, 2_654_435_761) >>> 0, 0);
  key.writeUInt32BE(number, 5);
  key[4] = 0x6f;
  return key;
};

const fillSmall = async (engine: DeviceEngine): Promise<void> => {
  const bytes = Buffer.alloc(SMALL_BYTES, 7);
  let next = 0;
  const applier = async (): Promise<void> => {
    while (next < count) {
      const key = keyOf(next++);
      await engine.apply([{ kind: "put", key, value: Buffer.alloc(VALUE_BYTES, 1), body: { kind: "bytes", bytes } }]);
    }
  };
  await Promise.all(Array.from({ length: APPLIERS }, applier));
};

const fillLarge = async (engine: DeviceEngine): Promise<void> => {
  const piece = Buffer.alloc(1024 * 1024, 9);
  for (let index = 0; index < largeCount; index++) {
    const staged = await engine.stage();
    for (let at = 0; at < LARGE_BYTES; at += piece.length) await staged.write(piece);
    const length = await staged.seal();
    const body = { kind: "staged", file: staged.file, length } as const;
    await engine.apply([{ kind: "put", key: keyOf(count + index), value: Buffer.alloc(VALUE_BYTES, 1), body }]);
  }
};

/** What a run took: bytes a second, CPU of it, the longest that anything else waited. */
const measure = async (what: string, read: () => Promise<number>): Promise<void> => {
  for (let run = 0; run < RUNS; run++) {
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    const startedCpu = process.cpuUsage();
    const startedMs = performance.now();
    const bytes = await read();
    const seconds = (performance.now() - startedMs) / 1000;
    const cpu = process.cpuUsage(startedCpu);
    delay.disable();
    console.log(
      JSON.stringify({
        what,
        run,
        mebibytes: Math.round(bytes / 1024 ** 2),
        megabytesPerSecond: Math.round(bytes / 1e6 / seconds),
        reach: `${REACH_BYTES_PER_SECOND / 1e6} MB/s`,
        userMsPerMebibyte: Number((cpu.user / 1000 / (bytes / 1024 ** 2)).toFixed(3)),
        systemMsPerMebibyte: Number((cpu.system / 1000 / (bytes / 1024 ** 2)).toFixed(3)),
        loopDelayP99Ms: Number((delay.percentile(99) / 1e6).toFixed(1)),
        rssMib: Math.round(process.memoryUsage.rss() / 1024 ** 2),
      }),
    );
  }
};

/** A round as an operator asks for it. */
const round = async (device: string, engine: DeviceEngine): Promise<number> => {
  const scrubber = new Scrubber({
    device,
    engine,
    store: scrubRecordFile(join(folder, device)),
    scrubDays: 0,
    allow: freely,
    onDamaged: (key) => {
      throw new Error(`${Buffer.from(key).toString("hex")} is damaged`);
    },
    clock: { nowMs: () => Date.now() },
    log: silent,
  });
  scrubber.start();
  const { signal } = new AbortController();
  while ((await scrubber.work(signal)) === "busy");
  return scrubber.report().last?.bytes ?? 0;
};

/** The same files, only read. */
const readAll = async (device: string, kind: "log" | "large"): Promise<number> => {
  const direct = new DirectReader(realDisk);
  const bytes = new Uint8Array(1024 * 1024);
  let sum = 0;
  const names = await realDisk.list(join(folder, device, kind));
  // Not those that are being allocated.
  for (const name of names.filter((one) => !one.endsWith(".new"))) {
    const file = await realDisk.open(join(folder, device, kind, name), "direct");
    const size = await file.size();
    await direct.turnTo(file, size);
    for (let at = 0; at < size; at += bytes.length) sum += await direct.read(bytes, at);
    await direct.stop();
    await file.close();
  }
  return sum;
};

const freely = async (): Promise<void> => {};

/** The part of a round that is in the log. */
const checkLog = async ({ scrub }: DeviceEngine): Promise<number> => {
  let bytes = 0;
  for (const segment of scrub.segments()) {
    const damaged = await scrub.checkSegment(segment.number, freely);
    if (damaged.length > 0) throw new Error("the log is damaged");
    bytes += segment.bytes;
  }
  return bytes;
};

const small = await openAt("small");
const large = await openAt("large");
try {
  await fillSmall(small);
  await fillLarge(large);
  await small.scrub.settle();
  await measure("log segments, only read", () => readAll("small", "log"));
  await measure(`log of ${count} objects of 4 KiB, checked`, () => checkLog(small));
  await measure(`${count} objects of 4 KiB, a whole round`, () => round("small", small));
  await measure("large bodies, only read", () => readAll("large", "large"));
  await measure(`${largeCount} bodies of 64 MiB, a whole round`, () => round("large", large));
} finally {
  await small[Symbol.asyncDispose]();
  await large[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true });
}
