import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { LocalVolumeHost } from "../block/host/local-volume-host.ts";
import { FileDriver } from "../block/host/drivers/file.ts";
import { hostPaths } from "../block/host/paths.ts";
import type { ExportTransport, VolumeExport } from "../block/volume-host.ts";
import { silentLog } from "../common/log.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { freePorts } from "../common/free-ports.ts";

const START_LIMIT_MS = 15_000;
const END_LIMIT_MS = 30_000;
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;
const LUN = 1;
const run = promisify(execFile);

/** A block host with a pool of files, in a folder of its own; what it serves ends with it. */
export class BlockStand implements AsyncDisposable {
  readonly folder: string;
  readonly host: LocalVolumeHost;
  readonly #poolFolder: string;
  readonly #runtime: ReturnType<typeof runtimePaths>;

  private constructor(folder: string, host: LocalVolumeHost) {
    this.folder = folder;
    this.host = host;
    this.#runtime = runtimePaths(folder);
    this.#poolFolder = hostPaths(this.#runtime).poolFolder;
  }

  static async opened(parent: string): Promise<BlockStand> {
    const folder = mkdtempSync(join(parent, "ringstead-block-bench-"));
    const runtime = runtimePaths(folder);
    const paths = hostPaths(runtime);
    for (const path of [runtime.socketDir, paths.folder]) mkdirSync(path, { recursive: true, mode: 0o700 });
    const host = await LocalVolumeHost.opened({
      paths,
      pools: new Map([["file", await FileDriver.opened(paths.poolFolder)]]),
      host: "127.0.0.1",
      publicHost: "127.0.0.1",
      firstPort: await freePorts(1),
      iscsiPort: await freePorts(1),
      log: silentLog,
    });
    return new BlockStand(folder, host);
  }

  /** Resolves with its id and, since no other layer was made meanwhile, with its file. */
  async newVolume(sizeBytes: number): Promise<{ readonly volumeId: string; readonly file: string }> {
    const volumeId = randomUUID();
    const before = new Set(await this.#layers());
    await this.host.createVolume({ volumeId, pool: "file", sizeBytes, source: { kind: "none" } });
    const [name = ""] = (await this.#layers()).filter((one) => !before.has(one));
    return { volumeId, file: join(this.#poolFolder, name) };
  }

  /** Does something with the volume while it is served. */
  async serving<Result>(
    volumeId: string,
    transport: ExportTransport,
    action: (exported: VolumeExport) => Promise<Result>,
  ): Promise<Result> {
    const attachmentId = randomUUID();
    const exported = await this.host.exportVolume({ volumeId, attachmentId, transport, isReadOnly: false });
    try {
      return await action(exported);
    } finally {
      await this.host.unexportVolume(volumeId, attachmentId);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { volumeId } of await this.host.exports()) await this.host.unexportVolume(volumeId);
    await this.host[Symbol.asyncDispose]();
    for (const path of [this.folder, this.#runtime.socketDir]) rmSync(path, { recursive: true, force: true });
  }

  async #layers(): Promise<readonly string[]> {
    return (await (await FileDriver.opened(this.#poolFolder)).layers()).map((id) => `layer-${id}`);
  }
}

/** The export as fio's engine `nbd`, and QEMU's `iscsi:` driver, take it. */
export const uriOf = (exported: VolumeExport): string => {
  if (exported.kind === "nbd-unix") return `nbd+unix:///${exported.exportName}?socket=${exported.socketPath}`;
  if (exported.kind === "nbd-tls") throw new Error("nothing here is measured over TLS");
  const { username, secret, host, port, targetName, diskNumber } = exported;
  return `iscsi://${username}%${secret}@${host}:${port}/${targetName}/${diskNumber}`;
};

const ended = async (child: ChildProcess, signal: NodeJS.Signals): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill(signal);
  await Promise.race([over, sleep(END_LIMIT_MS)]);
};

const untilTrue = async (what: string, condition: () => Promise<boolean> | boolean): Promise<void> => {
  for (const endMs = performance.now() + START_LIMIT_MS; !(await condition()); await sleep(20))
    if (performance.now() > endMs) throw new Error(`${what} does not start`);
};

/** The same file, served by `qemu-nbd` with the cache mode that our daemons have. */
export const withQemuNbd = async <Result>(
  folder: string,
  file: string,
  action: (uri: string) => Promise<Result>,
): Promise<Result> => {
  const socket = join(folder, "qemu-nbd");
  const words = ["--format=raw", "--cache=none", "--aio=io_uring", "--discard=unmap", "--persistent", "--shared=16"];
  const child = spawn("qemu-nbd", [...words, `--socket=${socket}`, file], { stdio: "ignore" });
  try {
    await untilTrue("qemu-nbd", () => existsSync(socket));
    return await action(`nbd+unix:///?socket=${socket}`);
  } finally {
    await ended(child, "SIGTERM");
    rmSync(socket, { force: true });
  }
};

/** The same file, served by a `tgtd` of its own as its users set it up: through the page cache. Requires: root. */
export const withTgt = async <Result>(
  folder: string,
  file: string,
  action: (uri: string) => Promise<Result>,
): Promise<Result> => {
  const port = await freePorts(1);
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", TGT_IPC_SOCKET: join(folder, "tgt") };
  const words = ["-f", "-C", "0", "--iscsi", `portal=127.0.0.1:${port}`];
  const child = spawn("tgtd", words, { stdio: "ignore", env, cwd: folder });
  const admin = (...options: readonly string[]) => run("tgtadm", ["--lld", "iscsi", ...options], { env });
  const target = "iqn.2026-01.test:file";
  try {
    await untilTrue("tgtd", () =>
      admin("--mode", "target", "--op", "show").then(
        () => true,
        () => false,
      ),
    );
    await admin("--mode", "target", "--op", "new", "--tid", "1", "--targetname", target);
    await admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", String(LUN), "--backing-store", file);
    await admin("--mode", "target", "--op", "bind", "--tid", "1", "--initiator-address", "ALL");
    return await action(`iscsi://127.0.0.1:${port}/${target}/${LUN}`);
  } finally {
    await ended(child, "SIGKILL");
    for (const name of ["tgt.0", "tgt.0.lock"]) rmSync(join(folder, name), { force: true });
  }
};

type FioSide = {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly clat_ns: { readonly max: number; readonly percentile?: Readonly<Record<string, number>> };
};

export type Pattern = "randread" | "randwrite" | "read" | "write";

export type Measured = {
  readonly operationsPerSecond: number;
  readonly bytesPerSecond: number;
  readonly p99Ms: number;
  readonly longestMs: number;
};

/** fio over NBD: so many seconds of the pattern, at depth 16. */
export const fio = async (uri: string, pattern: Pattern, blockBytes: number, seconds: number): Promise<Measured> => {
  const words = [
    "--name=bench",
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--rw=${pattern}`,
    `--bs=${blockBytes}`,
    "--iodepth=16",
    "--time_based",
    `--runtime=${seconds}`,
    "--randrepeat=0",
    "--output-format=json",
  ];
  const { stdout } = await run("fio", words, { maxBuffer: OUTPUT_LIMIT_BYTES, cwd: "/tmp" });
  const report = JSON.parse(stdout.slice(stdout.indexOf("{"))) as {
    jobs: readonly { read: FioSide; write: FioSide }[];
  };
  const side = report.jobs[0]?.[pattern.endsWith("read") ? "read" : "write"];
  if (side === undefined) throw new Error("fio measured nothing");
  return {
    operationsPerSecond: side.iops,
    bytesPerSecond: side.bw_bytes,
    p99Ms: (side.clat_ns.percentile?.["99.000000"] ?? 0) / 1e6,
    longestMs: side.clat_ns.max / 1e6,
  };
};

/** QEMU's iSCSI initiator at depth 16: operations a second over so many of 4 KiB, each at a place far from the one before. */
export const iscsiRate = async (uri: string, isWrite: boolean, count: number, sizeBytes: number): Promise<number> => {
  // An odd number of blocks: the steps reach every block before one comes again.
  const stepBytes = (Math.floor(sizeBytes / 4096 / 3) | 1) * 4096;
  const words = [
    "bench",
    "-f",
    "raw",
    "-t",
    "none",
    "-d",
    "16",
    "-s",
    "4096",
    "-c",
    String(count),
    "-S",
    String(stepBytes),
  ];
  const { stdout } = await run("qemu-img", [...words, ...(isWrite ? ["-w"] : []), uri], {
    maxBuffer: OUTPUT_LIMIT_BYTES,
  });
  const seconds = Number(/completed in ([\d.]+) seconds/.exec(stdout)?.[1]);
  if (!(seconds > 0)) throw new Error(`qemu-img bench said: ${stdout}`);
  return count / seconds;
};
