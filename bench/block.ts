import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { parseArgs } from "node:util";
import { NbdConnection } from "../block/host/nbd-client.ts";
import { whyNoIscsi } from "../block/host/iscsi/target-daemon.ts";
import { createFakeVolumeHost } from "../block/fake-volume-host.ts";
import { at, PROJECT, TestBlock } from "../block/test-block.ts";
import { sleep } from "../common/worker.ts";
import { BlockStand, fio, iscsiRate, type Measured, type Pattern, uriOf, withQemuNbd, withTgt } from "./block-stand.ts";
import { machineFacts } from "./report.ts";
import { commitOf } from "./ringstead-contender.ts";

/**
 * What volumes do. Beside qemu-nbd and tgt on the very same file, in turn (A B A B); each line is one run.
 *
 *     nbd-4k      random reads and writes of 4 KiB at depth 16 over NBD: one raw layer, and upon two snapshots, beside qemu-nbd on the raw layer's file
 *     nbd-1m      the same, one after the other, 1 MiB each
 *     iscsi       4 KiB at depth 16 through QEMU's initiator, beside tgtd on the raw layer's file (which it has in the page cache)
 *     snapshot    snapshots of a volume under random writes: how long each took, and the longest that a client waited
 *     clone       a copy of a volume of 100 GiB
 *     extend      the longest that a client which connects again at once went without an answer while its volume grew
 *     qos         operations a second under limits of 500 and 2,000
 *     idle        memory and CPU of 100 volumes that are served and not used
 *     list        a page of 1,000 volumes, with details
 *
 * `node bench/block.ts [--rows LIST] [--rounds N] [--seconds N] [--gib N] [--folder DIR]`
 */
const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "nbd-4k,nbd-1m,iscsi,snapshot,clone,extend,qos,idle,list" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "8" },
    gib: { type: "string", default: "2" },
    folder: { type: "string", default: tmpdir() },
  },
});
const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
const sizeBytes = Number(values.gib) * GIB;
const IDLE_VOLUMES = 100;
const LISTED_VOLUMES = 1_000;
const SNAPSHOTS = 10;
const ISCSI_OPERATIONS = 8_000;
const COMMAND_READ = 0;

const say = (row: string, figures: Readonly<Record<string, number | string>>): void => {
  const shown = Object.entries(figures).map(([name, value]) =>
    typeof value === "number"
      ? `${name} ${value >= 100 ? Math.round(value) : value.toPrecision(3)}`
      : `${name} ${value}`,
  );
  console.log(`${row.padEnd(9)} ${shown.join(", ")}`);
};

/** Every block written once: a file that is read where it has holes is read from nowhere. */
const fill = async (file: string): Promise<void> => {
  const bytes = Buffer.alloc(8 * MIB, 0x5a);
  const opened = await open(file, "r+");
  try {
    for (let offset = 0; offset < sizeBytes; offset += bytes.length) await opened.write(bytes, 0, bytes.length, offset);
    await opened.sync();
  } finally {
    await opened.close();
  }
};

const nbd = async (stand: BlockStand, row: string, patterns: readonly Pattern[], blockBytes: number): Promise<void> => {
  for (const layers of ["one raw layer", "upon two snapshots"]) {
    const { volumeId, file } = await stand.newVolume(sizeBytes);
    await fill(file);
    const snapshots = layers === "one raw layer" ? [] : [randomUUID(), randomUUID()];
    for (const id of snapshots) await stand.host.createSnapshot(volumeId, id);
    for (const pattern of patterns) {
      const measure = (uri: string): Promise<Measured> => fio(uri, pattern, blockBytes, seconds);
      for (let round = 1; round <= rounds; round++) {
        const own = await stand.serving(volumeId, "unix", (exported) => measure(uriOf(exported)));
        // Written to from beside its record, as nothing else is: what the snapshots hold is of no interest here.
        const other = await withQemuNbd(stand.folder, file, measure);
        const of = ({ operationsPerSecond, bytesPerSecond }: Measured) =>
          blockBytes < MIB ? operationsPerSecond : bytesPerSecond / MIB;
        const unit = blockBytes < MIB ? "/s" : "MiB/s";
        say(row, {
          [`${pattern}, ${layers}:`]: `round ${round}`,
          [`own ${unit}`]: of(own),
          [`qemu-nbd ${unit}`]: of(other),
          ratio: of(own) / of(other),
          "own p99 ms": own.p99Ms,
          "qemu-nbd p99 ms": other.p99Ms,
        });
      }
    }
    for (const id of snapshots.toReversed()) await stand.host.deleteSnapshot(volumeId, id);
    await stand.host.deleteVolume(volumeId);
  }
};

const iscsi = async (stand: BlockStand): Promise<void> => {
  const obstacle = whyNoIscsi();
  if (obstacle !== undefined) return say("iscsi", { "not measured:": obstacle });
  for (const layers of ["one raw layer", "upon two snapshots"]) {
    const { volumeId, file } = await stand.newVolume(sizeBytes);
    await fill(file);
    const snapshots = layers === "one raw layer" ? [] : [randomUUID(), randomUUID()];
    for (const id of snapshots) await stand.host.createSnapshot(volumeId, id);
    for (const isWrite of [false, true])
      for (let round = 1; round <= rounds; round++) {
        const measure = (uri: string): Promise<number> => iscsiRate(uri, isWrite, ISCSI_OPERATIONS, sizeBytes);
        const own = await stand.serving(volumeId, "iscsi", (exported) => measure(uriOf(exported)));
        const other = await withTgt(stand.folder, file, measure);
        const name = `${isWrite ? "writes" : "reads"}, ${layers}:`;
        say("iscsi", { [name]: `round ${round}`, "own /s": own, "tgt /s": other, ratio: own / other });
      }
    for (const id of snapshots.toReversed()) await stand.host.deleteSnapshot(volumeId, id);
    await stand.host.deleteVolume(volumeId);
  }
};

const snapshot = async (stand: BlockStand): Promise<void> => {
  const { volumeId, file } = await stand.newVolume(sizeBytes);
  await fill(file);
  await stand.serving(volumeId, "unix", async (exported) => {
    const load = fio(uriOf(exported), "randwrite", 4 * KIB, seconds);
    const taken: number[] = [];
    for (let count = 0; count < SNAPSHOTS; count++) {
      await sleep((seconds * 1_000) / (SNAPSHOTS + 2));
      const began = performance.now();
      await stand.host.createSnapshot(volumeId, randomUUID());
      taken.push(performance.now() - began);
    }
    const { operationsPerSecond, longestMs } = await load;
    const sorted = taken.toSorted((one, other) => one - other);
    say("snapshot", {
      "under writes /s": operationsPerSecond,
      "median ms": sorted[SNAPSHOTS / 2] ?? 0,
      "longest ms": sorted.at(-1) ?? 0,
      "client's longest ms": longestMs,
    });
  });
};

const clone = async (stand: BlockStand): Promise<void> => {
  const { volumeId } = await stand.newVolume(100 * GIB);
  for (let round = 1; round <= rounds; round++) {
    const copyId = randomUUID();
    const began = performance.now();
    const source = { kind: "volume", volumeId } as const;
    await stand.host.createVolume({ volumeId: copyId, pool: "file", sizeBytes: 100 * GIB, source });
    say("clone", { "of 100 GiB:": `round ${round}`, ms: performance.now() - began });
    await stand.host.deleteVolume(copyId);
  }
};

const extend = async (stand: BlockStand): Promise<void> => {
  const { volumeId } = await stand.newVolume(64 * MIB);
  await stand.serving(volumeId, "unix", async (exported) => {
    if (exported.kind !== "nbd-unix") throw new Error("a Unix socket was asked for");
    let isOver = false;
    let longestMs = 0;
    const client = (async (): Promise<void> => {
      for (let answeredMs = performance.now(); !isOver; ) {
        try {
          using connection = await NbdConnection.opened(exported.socketPath, exported.exportName, []);
          while (!isOver) {
            await connection.ask(COMMAND_READ, 0, 4 * KIB);
            longestMs = Math.max(longestMs, performance.now() - answeredMs);
            answeredMs = performance.now();
          }
        } catch {
          // Closed, or not open again yet.
        }
      }
    })();
    for (let round = 1; round <= rounds; round++) {
      await sleep(500);
      longestMs = 0;
      const began = performance.now();
      await stand.host.extendVolume(volumeId, (64 + round) * MIB);
      const callMs = performance.now() - began;
      await sleep(500);
      say("extend", { "round:": String(round), "gap ms": longestMs, "call ms": callMs });
    }
    isOver = true;
    await client;
  });
};

const qos = async (stand: BlockStand): Promise<void> => {
  const { volumeId, file } = await stand.newVolume(sizeBytes);
  await fill(file);
  await stand.serving(volumeId, "unix", async (exported) => {
    for (const limit of [500, 2_000]) {
      await stand.host.limitVolumes(new Map([[volumeId, { "iops-total": limit }]]));
      const { operationsPerSecond } = await fio(uriOf(exported), "randread", 4 * KIB, seconds);
      const off = (100 * (operationsPerSecond - limit)) / limit;
      say("qos", { limit: String(limit), "measured /s": operationsPerSecond, "off by per cent": off.toFixed(1) });
    }
    await stand.host.limitVolumes(new Map());
  });
};

const pssBytes = (pid: number): number =>
  Number(/^Pss: +(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0) * KIB;
const cpuTicks = (pid: number): number => {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
};

const idle = async (stand: BlockStand): Promise<void> => {
  const began = performance.now();
  for (let count = 0; count < IDLE_VOLUMES; count++) {
    const { volumeId } = await stand.newVolume(64 * MIB);
    await stand.host.exportVolume({ volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false });
  }
  const madeMs = (performance.now() - began) / IDLE_VOLUMES;
  const pids = (await stand.host.exports()).map(({ pid }) => pid);
  const ticks = () => pids.reduce((sum, pid) => sum + cpuTicks(pid), 0);
  const before = ticks();
  await sleep(seconds * 1_000);
  const memory = pids.reduce((sum, pid) => sum + pssBytes(pid), 0);
  say("idle", {
    volumes: String(pids.length),
    "MiB each (PSS)": memory / pids.length / MIB,
    "ms to make and serve one": madeMs,
    // A tick is a hundredth of a second: so many per second of one core.
    "per cent of a core, all": (ticks() - before) / seconds,
  });
};

const list = async (): Promise<void> => {
  await using block = await TestBlock.start({}, createFakeVolumeHost({ lvm: 10 * LISTED_VOLUMES }));
  const quota = { volumes: -1, gigabytes: -1 };
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: quota });
  for (let count = 0; count < LISTED_VOLUMES; count++)
    await block.call("POST", "/volumes", { body: { volume: { size: 1, name: `volume ${count}` } } });
  const times: number[] = [];
  for (let round = 0; round < 30; round++) {
    const began = performance.now();
    const answer = await block.call("GET", `/volumes/detail?limit=${LISTED_VOLUMES}`);
    times.push(performance.now() - began);
    const shown = at(answer, "volumes");
    if (!Array.isArray(shown) || shown.length !== LISTED_VOLUMES) throw new Error("the list is not whole");
  }
  const sorted = times.toSorted((one, other) => one - other);
  say("list", { volumes: String(LISTED_VOLUMES), "median ms": sorted[15] ?? 0, "longest ms": sorted.at(-1) ?? 0 });
};

const ROWS: Readonly<Record<string, (stand: BlockStand) => Promise<void>>> = {
  "nbd-4k": (stand) => nbd(stand, "nbd-4k", ["randread", "randwrite"], 4 * KIB),
  "nbd-1m": (stand) => nbd(stand, "nbd-1m", ["read", "write"], MIB),
  iscsi,
  snapshot,
  clone,
  extend,
  qos,
  idle,
  list: () => list(),
};

console.log(JSON.stringify({ commit: commitOf(), machine: machineFacts() }));
for (const name of values.rows.split(",")) {
  const row = ROWS[name];
  if (row === undefined) throw new Error(`there is no row "${name}": ${Object.keys(ROWS).join(", ")}`);
  // A folder of its own for each row: none finds what another left.
  await using stand = await BlockStand.opened(values.folder);
  await row(stand);
}
