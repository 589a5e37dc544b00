import { execFile, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { onTestFinished } from "vitest";
import { silentLog } from "../../common/log.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import type { VolumeExport } from "../volume-host.ts";
import type { Driver } from "./drivers/driver.ts";
import { FileDriver } from "./drivers/file.ts";
import { lvmAbilities, openFilePool } from "./drivers/lvm-pool.ts";
import { LocalVolumeHost, type LocalVolumeHostOptions } from "./local-volume-host.ts";
import { hostPaths } from "./paths.ts";
import { ExportRecords } from "./store/export-records.ts";

const POOL_BYTES = 1024 * 1024 * 1024;
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024;
const run = promisify(execFile);

type TestHostOptions = Pick<LocalVolumeHostOptions, "writerIdleMs" | "backups" | "backupPatienceMs">;

/** A host of one pool in a folder of its own; what it leaves running ends with the test. */
export class TestHost {
  readonly folder = mkdtempSync(join(tmpdir(), "rs-host-"));
  readonly runtime = runtimePaths(this.folder);
  readonly paths = hostPaths(this.runtime);
  readonly pool: "lvm" | "file";
  readonly #groupName = `ringstead-${randomBytes(6).toString("hex")}`;
  readonly #firstPort = 20_000 + Math.floor(Math.random() * 20_000);
  readonly #iscsiPort = 11_000 + Math.floor(Math.random() * 8_000);
  #driver: Driver | undefined;
  #host: LocalVolumeHost | undefined;

  readonly #options: TestHostOptions;

  constructor(pool: "lvm" | "file", options: TestHostOptions = {}) {
    this.pool = pool;
    this.#options = options;
    for (const path of [this.runtime.socketDir, this.paths.folder]) mkdirSync(path, { recursive: true, mode: 0o700 });
    onTestFinished(() => this.#remove());
  }

  get host(): LocalVolumeHost {
    if (this.#host === undefined) throw new Error("the host is not open");
    return this.#host;
  }

  async open(): Promise<LocalVolumeHost> {
    this.#driver ??= await this.#openDriver();
    const pools = new Map([[this.pool, this.#driver]]);
    const where = {
      host: "127.0.0.1",
      publicHost: "127.0.0.1",
      firstPort: this.#firstPort,
      iscsiPort: this.#iscsiPort,
    };
    this.#host = await LocalVolumeHost.opened({ paths: this.paths, pools, ...where, log: silentLog, ...this.#options });
    return this.#host;
  }

  /** As after an end of the process: daemons go on. */
  async reopen(): Promise<LocalVolumeHost> {
    await this.#host?.[Symbol.asyncDispose]();
    return this.open();
  }

  async newVolume(sizeBytes: number): Promise<string> {
    const volumeId = randomUUID();
    await this.host.createVolume({ volumeId, pool: this.pool, sizeBytes, source: { kind: "none" } });
    return volumeId;
  }

  /** The layers that have space, and those that the records know of. */
  async layers(): Promise<{ readonly inPool: readonly string[]; readonly recorded: readonly string[] }> {
    const records = JSON.parse(readFileSync(this.paths.records, "utf8")) as { layers: { id: string }[] };
    const inPool = (await this.#driver?.layers()) ?? [];
    return { inPool: inPool.toSorted(), recorded: records.layers.map(({ id }) => id).toSorted() };
  }

  /** Bytes that the whole pool takes on its file system. */
  async allocatedBytes(): Promise<number> {
    const path = this.pool === "lvm" ? this.paths.poolFile : this.paths.poolFolder;
    return Number((await run("du", ["--summarize", "--block-size=1", path])).stdout.split("\t")[0]);
  }

  /** Does something with the volume while it is exported on a Unix socket. */
  async withExport<Result>(volumeId: string, action: (uri: string) => Promise<Result>): Promise<Result> {
    const attachmentId = randomUUID();
    const wanted = { volumeId, attachmentId, transport: "unix", isReadOnly: false } as const;
    const result = await action(uriOf(await this.host.exportVolume(wanted)));
    await this.host.unexportVolume(volumeId, attachmentId);
    return result;
  }

  write(volumeId: string, offset: number, bytes: Buffer): Promise<void> {
    return this.withExport(volumeId, (uri) => writeTo(uri, offset, bytes));
  }

  read(volumeId: string): Promise<Buffer> {
    return this.withExport(volumeId, readFrom);
  }

  async #openDriver(): Promise<Driver> {
    if (this.pool === "file") return FileDriver.opened(this.paths.poolFolder);
    mkdirSync(dirname(this.paths.poolFile), { recursive: true });
    writeFileSync(this.paths.poolFile, "");
    truncateSync(this.paths.poolFile, POOL_BYTES);
    const pool = { file: this.paths.poolFile, groupName: this.#groupName };
    return openFilePool(pool, "auto", await lvmAbilities());
  }

  async #remove(): Promise<void> {
    // What is written, not what runs: a daemon may be on its way.
    for (const { volumeId, attachments } of new ExportRecords(this.paths.exportRecords).all) {
      for (const { attachmentId } of attachments) await this.host.unexportVolume(volumeId, attachmentId);
    }
    await this.#host?.[Symbol.asyncDispose]();
    await this.#driver?.[Symbol.asyncDispose]();
    for (const path of [this.folder, this.runtime.socketDir]) rmSync(path, { recursive: true, force: true });
  }
}

/** The export as nbdinfo, nbdcopy and fio take it. */
export const uriOf = (exported: VolumeExport): string => {
  if (exported.kind === "nbd-unix") return `nbd+unix:///${exported.exportName}?socket=${exported.socketPath}`;
  if (exported.kind === "iscsi") {
    const { host, port, targetName, diskNumber, username, secret } = exported;
    return `iscsi://${username}%${secret}@${host}:${port}/${targetName}/${diskNumber}`;
  }
  const { host, port, exportName, credentialFolder } = exported;
  return `nbds://${exportName}@${host}:${port}/${exportName}?tls-psk-file=${credentialFolder}/keys.psk`;
};

const feed = (program: string, words: readonly string[], bytes: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ["pipe", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => (said += chunk.toString()));
    child.once("error", reject);
    child.once("close", (code) => (code === 0 ? resolve() : reject(new Error(`${program}: ${said}`))));
    child.stdin.on("error", () => undefined);
    child.stdin.end(bytes);
  });

/** Writes through QEMU's own client, which flushes before it ends. */
export const writeTo = async (uri: string, offset: number, bytes: Buffer): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), "rs-write-"));
  try {
    writeFileSync(join(folder, "bytes"), bytes);
    const command = `write -q -s ${join(folder, "bytes")} ${offset} ${bytes.length}`;
    await feed("qemu-io", ["-f", "raw", "-c", command, "-c", "flush", uri], Buffer.alloc(0));
  } finally {
    rmSync(folder, { recursive: true });
  }
};

export const readFrom = async (uri: string): Promise<Buffer> => {
  const options = { encoding: "buffer", maxBuffer: OUTPUT_LIMIT_BYTES } as const;
  return (await run("nbdcopy", [uri, "-"], options)).stdout;
};

export const sizeOf = async (uri: string): Promise<number> => Number((await run("nbdinfo", ["--size", uri])).stdout);
