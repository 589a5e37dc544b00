import { type ChildProcess, fork } from "node:child_process";
import { entryDigests } from "../storage-node/store/entry-digest.ts";
import { once } from "node:events";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DeviceEngine, DeviceFigures } from "../storage-node/engine/device-engine.ts";
import { openDevice } from "../storage-node/engine/open-device.ts";
import { devicePaths } from "../storage-node/engine/paths.ts";

/**
 * One device that has grown large: `node bench/device-at-size.ts [entries] [folder]`, by default 20,000,000 entries in the system's
 * temporary folder (reckoned from 300,000: some 20 GB there, and the better part of an hour).
 *
 * It loads the entries in slices, their keys in random order, and between slices measures what an empty device does at that time, since
 * the machine's own speed drifts. Then it kills the process amid further puts and measures how soon another one serves; kills that one,
 * throws the index away and measures how fast it comes back from the log. Found entries are checked by their bytes. Each device is
 * in a process of its own, so that its memory is its alone; writes are those of the whole disk during the slices.
 *
 * One line of JSON a slice, and one at the end with what is to be reached; the exit code tells only whether everything was found again.
 */
const REACH = {
  shareOfEmptyRate: 0.7,
  anonymousMib: 600,
  serveSeconds: 5,
  rebuiltRecordsPerSecond: 100_000,
} as const;
const SLICES = 20;
/** An empty device is measured before and after so many slices, which are compared with the mean of both. */
const SLICES_PER_GROUP = 5;
const APPLIERS = 64;
const CHECKED_ENTRIES = 10_000;
const KEY_BYTES = 70;
const VALUE_BYTES = 100;
const BODY_BYTES = 130;
const SAMPLE_INTERVAL_MS = 100;
const SPARES_WAIT_MS = 500;
/** Amid a load of so many more entries the process is killed, this long after it began. */
const KILLED_LOAD = 1_000_000;
const KILL_AFTER_MS = 700;
const MIB = 1_048_576;
const NUMBER_STEP = 2_654_435_761;

type Order =
  | { readonly kind: "load"; readonly from: number; readonly count: number }
  | { readonly kind: "check"; readonly count: number };
/** What a device's process answers; its first answer comes when it serves. */
type Answer = { readonly seconds: number; readonly figures: DeviceFigures };

const keyOf = (number: number): Uint8Array => {
  const key = Buffer.alloc(KEY_BYTES, 97);
  key.writeUInt32BE(Math.imul(number, NUMBER_STEP) >>> 0, 0);
  key.writeUInt32BE(number, 4);
  return key;
};

const numbered = (bytes: number, number: number): Buffer => {
  const buffer = Buffer.alloc(bytes, 7);
  buffer.writeUInt32BE(number, 0);
  return buffer;
};

const load = async (device: DeviceEngine, from: number, count: number): Promise<void> => {
  let next = from;
  const applier = async (): Promise<void> => {
    while (next < from + count) {
      const number = next++;
      const body = { kind: "bytes", bytes: numbered(BODY_BYTES, number) } as const;
      await device.apply([{ kind: "put", key: keyOf(number), value: numbered(VALUE_BYTES, number), body }]);
    }
  };
  await Promise.all(Array.from({ length: APPLIERS }, applier));
};

/** Throws where one of the entries, spread over the first `count`, is not what was put. */
const check = async (device: DeviceEngine, count: number): Promise<void> => {
  const step = Math.max(1, Math.floor(count / CHECKED_ENTRIES));
  for (let number = 0; number < count; number += step) {
    const entry = device.get(keyOf(number));
    if (entry === undefined) throw new Error(`entry ${number} is absent`);
    const body = await device.readBody(entry.body, 0, BODY_BYTES);
    if (!numbered(VALUE_BYTES, number).equals(entry.value) || !numbered(BODY_BYTES, number).equals(body))
      throw new Error(`entry ${number} is not what was put`);
  }
};

/** Segments are allocated in the background at first; that belongs to no put. */
const allocated = async (device: DeviceEngine): Promise<void> => {
  for (let before = -1, now = 0; before !== now; ) {
    before = now;
    await sleep(SPARES_WAIT_MS);
    now = device.figures()["spares"] ?? 0;
  }
};

/** The process of a device: opens it, then does what it is told. */
const serve = async (path: string): Promise<void> => {
  const answer = (startedMs: number): void => {
    process.send?.({ seconds: (performance.now() - startedMs) / 1000, figures: device.figures() } satisfies Answer);
  };
  const openedMs = performance.now();
  const device = await openDevice({
    path,
    identity: { clusterId: "bench", node: "bench", device: "d1" },
    digests: entryDigests(Buffer.alloc(32)),
  });
  // It serves when it has read and written something.
  device.get(keyOf(0));
  await device.apply([{ kind: "put", key: Buffer.from("served"), value: Buffer.alloc(1), body: { kind: "none" } }]);
  answer(openedMs);
  const ready = allocated(device);
  process.on("message", (order: Order) => {
    const run = async (): Promise<void> => {
      await ready;
      const startedMs = performance.now();
      if (order.kind === "load") await load(device, order.from, order.count);
      else await check(device, order.count);
      answer(startedMs);
    };
    void run();
  });
};

const anonymousBytesOf = (pid: number | undefined): number => {
  try {
    return Number(/^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    // The process ended meanwhile.
    return 0;
  }
};

/** A device in a process of its own, which is killed when this is disposed. */
class DeviceProcess implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #sampler: NodeJS.Timeout;
  #anonymousBytes = 0;

  private constructor(path: string) {
    this.#child = fork(import.meta.filename, ["device", path]);
    this.#sampler = setInterval(() => {
      this.#anonymousBytes = Math.max(this.#anonymousBytes, anonymousBytesOf(this.#child.pid));
    }, SAMPLE_INTERVAL_MS);
  }

  /** Resolves when it serves, with the seconds since its start, Node's included, and what it said. */
  static async start(path: string): Promise<{ process: DeviceProcess; seconds: number; opened: Answer }> {
    const startedMs = performance.now();
    const started = new DeviceProcess(path);
    const opened = await started.#answer();
    return { process: started, seconds: (performance.now() - startedMs) / 1000, opened };
  }

  /** The most it ever held, maps of files not counted. */
  get anonymousBytes(): number {
    return this.#anonymousBytes;
  }

  order(order: Order): Promise<Answer> {
    this.#child.send(order);
    return this.#answer();
  }

  async #answer(): Promise<Answer> {
    const answered = new AbortController();
    const { signal } = answered;
    const ended = once(this.#child, "exit", { signal }).then(([code]) => {
      throw new Error(`the device's process ended with ${code}`);
    });
    try {
      const [answer] = await Promise.race([once(this.#child, "message", { signal }), ended]);
      return answer;
    } finally {
      ended.catch(() => {});
      answered.abort();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#sampler);
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }
}

const rounded = (value: number, digits = 0): number => Number(value.toFixed(digits));

const usedBytesOf = (folder: string): number =>
  readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).blocks * 512, 0);

const emptyRate = async (parent: string, count: number): Promise<number> => {
  const path = join(parent, "empty");
  try {
    const { process: empty } = await DeviceProcess.start(path);
    await using running = empty;
    return count / (await running.order({ kind: "load", from: 0, count })).seconds;
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
};

/**
 * What the disk beneath a folder has written, whoever asked for it; undefined where it is no disk of its own. A process's own count
 * (/proc/PID/io) is no use: it counts the whole of a large page of the cache that a few KiB were written into.
 */
const diskWrittenBytes = (folder: string): number | undefined => {
  const device = BigInt(statSync(folder).dev);
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & ~0xfffn);
  const minor = (device & 0xffn) | ((device >> 12n) & ~0xffn);
  try {
    const fields = readFileSync(`/sys/dev/block/${major}:${minor}/stat`, "utf8").trim().split(/\s+/);
    return Number(fields[6]) * 512;
  } catch {
    return undefined;
  }
};

type Loaded = { readonly shares: number[]; readonly anonymousBytes: number; readonly writtenBytes: number | undefined };

/** Loads all entries, then kills the process amid further ones. */
const loadAll = async (parent: string, path: string, entries: number): Promise<Loaded> => {
  const { process: started } = await DeviceProcess.start(path);
  await using device = started;
  const shares: number[] = [];
  const sliceEntries = Math.floor(entries / SLICES);
  let writtenBytes: number | undefined = 0;
  let emptyBefore = await emptyRate(parent, sliceEntries);
  let groupSeconds = 0;
  for (let slice = 0; slice < SLICES; slice++) {
    const before = diskWrittenBytes(parent);
    const { seconds, figures } = await device.order({ kind: "load", from: sliceEntries * slice, count: sliceEntries });
    const after = diskWrittenBytes(parent);
    writtenBytes = after === undefined || before === undefined ? undefined : (writtenBytes ?? 0) + after - before;
    groupSeconds += seconds;
    const line = {
      entries: sliceEntries * (slice + 1),
      putsPerSecond: rounded(sliceEntries / seconds),
      anonymousMib: rounded(device.anonymousBytes / MIB),
      logMib: rounded(figures.usedBytes / MIB),
      writtenMib: writtenBytes === undefined ? "unknown" : rounded(writtenBytes / MIB),
    };
    if ((slice + 1) % SLICES_PER_GROUP !== 0) {
      console.log(JSON.stringify(line));
      continue;
    }
    const emptyAfter = await emptyRate(parent, sliceEntries);
    const rate = (sliceEntries * SLICES_PER_GROUP) / groupSeconds;
    const emptyPutsPerSecond = (emptyBefore + emptyAfter) / 2;
    shares.push(rate / emptyPutsPerSecond);
    const group = { groupPutsPerSecond: rounded(rate), emptyPutsPerSecond: rounded(emptyPutsPerSecond) };
    console.log(JSON.stringify({ ...line, ...group, share: rounded(rate / emptyPutsPerSecond, 2) }));
    emptyBefore = emptyAfter;
    groupSeconds = 0;
  }
  // Killed below, before it can answer.
  device.order({ kind: "load", from: entries, count: KILLED_LOAD }).catch(() => {});
  await sleep(KILL_AFTER_MS);
  return { shares, anonymousBytes: device.anonymousBytes, writtenBytes };
};

const main = async ([countText = "20000000", folder = tmpdir()]: string[]): Promise<void> => {
  const entries = Number(countText);
  if (!Number.isSafeInteger(entries) || entries < SLICES || entries % SLICES !== 0)
    throw new Error(`"${countText}" is no number of entries that ${SLICES} divides`);
  const parent = mkdtempSync(join(folder, "ringstead-at-size-"));
  try {
    const path = join(parent, "d1");
    const { shares, anonymousBytes, writtenBytes } = await loadAll(parent, path, entries);
    const bytesPerObject = usedBytesOf(path) / entries;
    const peaks = [anonymousBytes];
    const again = async (): Promise<{ seconds: number; opened: Answer }> => {
      const { process: started, seconds, opened } = await DeviceProcess.start(path);
      await using device = started;
      await device.order({ kind: "check", count: entries });
      peaks.push(device.anonymousBytes);
      return { seconds, opened };
    };
    const served = await again();
    rmSync(devicePaths(path).index, { recursive: true });
    const rebuilt = await again();
    const records = rebuilt.opened.figures["recoveredRecords"] ?? 0;
    const figures = {
      shareOfEmptyRate: rounded(Math.min(...shares), 2),
      anonymousMib: rounded(Math.max(...peaks) / MIB),
      serveSeconds: rounded(served.seconds, 2),
      rebuiltRecordsPerSecond: rounded(records / rebuilt.opened.seconds),
    };
    const reached = {
      shareOfEmptyRate: figures.shareOfEmptyRate >= REACH.shareOfEmptyRate,
      anonymousMib: figures.anonymousMib <= REACH.anonymousMib,
      serveSeconds: figures.serveSeconds <= REACH.serveSeconds,
      rebuiltRecordsPerSecond: figures.rebuiltRecordsPerSecond >= REACH.rebuiltRecordsPerSecond,
    };
    const replayedRecords = served.opened.figures["recoveredRecords"];
    const payloadBytes = KEY_BYTES + VALUE_BYTES + BODY_BYTES;
    console.log(
      JSON.stringify({
        entries,
        ...figures,
        reached,
        writeAmplification:
          writtenBytes === undefined ? "unknown" : rounded(writtenBytes / (entries * payloadBytes), 2),
        bytesPerObject: rounded(bytesPerObject),
        payloadBytes,
        replayedRecords,
        rebuiltRecords: records,
      }),
    );
  } finally {
    rmSync(parent, { recursive: true, force: true });
  }
};

const [mode, path = ""] = process.argv.slice(2);
if (mode === "device" && process.send !== undefined) await serve(path);
else await main(process.argv.slice(2, 4));
