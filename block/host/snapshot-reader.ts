import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import { endProcesses, isStartedWith, type ProcessIdentity, startTimeOf } from "../../common/process-identity.ts";
import { sleep } from "../../common/worker.ts";
import type { Extent } from "../backup/core/runs.ts";
import { EXTENTS_LIMIT, type SnapshotChanges } from "../volume-data.ts";
import { CACHE_MODES, type CacheMode, nodeOf, type PlacedLayer, topNode } from "./exports/block-graph.ts";
import { NbdConnection, type NbdPiece } from "./nbd-client.ts";
import { COMMAND_BLOCK_STATUS, COMMAND_READ } from "./nbd-protocol.ts";
import type { HostPaths } from "./paths.ts";

const EXPORT = "snapshot";
/** Which layer each byte is of: 1 is the top, 0 none. */
const DEPTH = "qemu:allocation-depth";
const ALLOCATION = "base:allocation";
const FLAG_ZERO = 2;
const START_LIMIT_MS = 15_000;
const POLL_MS = 5;
/** It writes nothing: there is nothing to wait for. */
const GRACE_MS = 0;
/** NBD counts in 32 bits; a question about less is as quick. */
const LOOK_LIMIT_BYTES = 1024 * 1024 * 1024;

/**
 * A `qemu-storage-daemon` that has the frozen layers of one snapshot open to read them, and lives no longer than it is asked: the volume's own
 * daemon, and whoever writes to the volume, notice nothing of it. It says of each byte which layer it is of, and that is the record of changes.
 * Requires: nobody merges or erases these layers meanwhile.
 */
export class SnapshotReader {
  readonly layers: readonly string[];
  readonly sizeBytes: number;
  readonly #identity: ProcessIdentity;
  readonly #connection: NbdConnection;
  readonly #remove: () => void;

  private constructor(
    identity: ProcessIdentity,
    connection: NbdConnection,
    chain: readonly PlacedLayer[],
    sizeBytes: number,
    remove: () => void,
  ) {
    this.#identity = identity;
    this.#connection = connection;
    this.layers = chain.map(({ layer }) => layer.id);
    this.sizeBytes = sizeBytes;
    this.#remove = remove;
  }

  /** `chain`: from the snapshot's layer down. Errors: "daemon-failed", "daemon-lost". */
  static async opened(
    paths: HostPaths,
    snapshotId: string,
    chain: readonly PlacedLayer[],
    sizeBytes: number,
  ): Promise<SnapshotReader> {
    const folder = join(paths.readersFolder, snapshotId);
    const socket = paths.readerSocket(snapshotId);
    await endAt(folder, socket);
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const remove = (): void => {
      rmSync(folder, { recursive: true, force: true });
      rmSync(socket, { force: true });
    };
    for (const mode of CACHE_MODES) {
      try {
        const identity = await startedReader(folder, socket, chain, mode);
        try {
          const connection = await NbdConnection.opened(socket, EXPORT, [DEPTH, ALLOCATION]);
          return new SnapshotReader(identity, connection, chain, sizeBytes, remove);
        } catch (error) {
          await endProcesses([identity], GRACE_MS);
          throw error;
        }
      } catch (error) {
        if (mode !== CACHE_MODES.at(-1) && /io_uring|O_DIRECT/.test(messageOf(error))) continue;
        remove();
        throw error;
      }
    }
    throw new Error("there is at least one mode");
  }

  get isOpen(): boolean {
    return this.#connection.isOpen;
  }

  /** `newerLayers`: how many layers, from the top, count as changed; undefined: all that is not zeros does. */
  async changes(
    offset: number,
    length: number,
    newerLayers: number | undefined,
  ): Promise<Omit<SnapshotChanges, "isRecorded">> {
    const asked = Math.min(length, LOOK_LIMIT_BYTES);
    const within = Math.max(0, Math.min(asked, this.sizeBytes - offset));
    if (within === 0) return { coveredBytes: asked, extents: [] };
    const pieces = await this.#connection.ask(COMMAND_BLOCK_STATUS, offset, within);
    const [depths, zeros] = [statusOf(pieces, DEPTH), statusOf(pieces, ALLOCATION)];
    const { extents, end } = joined(depths, zeros, (depth, flags) => {
      const isZero = (flags & FLAG_ZERO) !== 0;
      if (newerLayers === undefined) return isZero ? undefined : { isZero: false };
      return depth >= 1 && depth <= newerLayers ? { isZero } : undefined;
    });
    const coveredBytes = Math.min(end, within);
    if (coveredBytes <= 0)
      throw new RingsteadError("daemon-lost", "the daemon of a snapshot says nothing of its layers");
    return {
      coveredBytes: coveredBytes === within ? asked : coveredBytes,
      extents: extents.map((one) => ({ ...one, offset: one.offset + offset })),
    };
  }

  /** Beyond what the layers have, zeros. */
  async read(offset: number, length: number): Promise<Buffer> {
    const bytes = Buffer.alloc(length);
    const within = Math.max(0, Math.min(length, this.#connection.sizeBytes - offset));
    if (within === 0) return bytes;
    let filled = 0;
    for (const piece of await this.#connection.ask(COMMAND_READ, offset, within)) {
      if (piece.kind === "hole") filled += piece.length;
      if (piece.kind !== "data") continue;
      piece.bytes.copy(bytes, piece.offset - offset);
      filled += piece.bytes.length;
    }
    if (filled !== within)
      throw new RingsteadError("daemon-lost", `the daemon of a snapshot gave ${filled} bytes of ${within}`);
    return bytes;
  }

  async end(): Promise<void> {
    this.#connection[Symbol.dispose]();
    await endProcesses([this.#identity], GRACE_MS);
    this.#remove();
  }
}

/** Ends what a host that was killed left behind. */
export const endStrayReaders = async (paths: HostPaths): Promise<void> => {
  let names: string[];
  try {
    names = readdirSync(paths.readersFolder);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return;
    throw error;
  }
  for (const name of names) await endAt(join(paths.readersFolder, name), paths.readerSocket(name));
};

type Status = readonly (readonly [length: number, flags: number])[];

const statusOf = (pieces: readonly NbdPiece[], context: string): Status =>
  pieces.flatMap((piece) => (piece.kind === "status" && piece.context === context ? piece.extents : []));

/** What two contexts say together, as far as both reach: neighbours that are alike are one. */
const joined = (
  depths: Status,
  zeros: Status,
  wanted: (depth: number, flags: number) => { readonly isZero: boolean } | undefined,
): { readonly extents: readonly Extent[]; readonly end: number } => {
  const extents: { offset: number; length: number; isZero: boolean }[] = [];
  let at = 0;
  const left = { depth: 0, zero: 0 };
  for (let [one, other] = [0, 0]; extents.length < EXTENTS_LIMIT; ) {
    const [depth, zero] = [depths[one], zeros[other]];
    if (depth === undefined || zero === undefined) break;
    const length = Math.min(depth[0] - left.depth, zero[0] - left.zero);
    const found = wanted(depth[1], zero[1]);
    const last = extents.at(-1);
    if (found !== undefined) {
      if (last !== undefined && last.isZero === found.isZero && last.offset + last.length === at) last.length += length;
      else extents.push({ offset: at, length, isZero: found.isZero });
    }
    at += length;
    left.depth += length;
    left.zero += length;
    if (left.depth === depth[0]) [one, left.depth] = [one + 1, 0];
    if (left.zero === zero[0]) [other, left.zero] = [other + 1, 0];
  }
  return { extents, end: at };
};

const pidFileIn = (folder: string): string => join(folder, "pid");

const endAt = async (folder: string, socket: string): Promise<void> => {
  let pid = Number.NaN;
  try {
    pid = Number(readFileSync(pidFileIn(folder), "utf8").trim());
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
  if (Number.isSafeInteger(pid) && pid > 1 && isStartedWith(pid, `addr.path=${socket}`)) {
    const startTime = startTimeOf(pid);
    if (startTime !== undefined) await endProcesses([{ pid, startTime }], GRACE_MS);
  }
  rmSync(folder, { recursive: true, force: true });
  rmSync(socket, { force: true });
};

const startedReader = async (
  folder: string,
  socket: string,
  chain: readonly PlacedLayer[],
  mode: CacheMode,
): Promise<ProcessIdentity> => {
  const [top] = chain;
  if (top === undefined) throw new Error("a snapshot has at least one layer");
  const logFile = join(folder, "log");
  const log = openSync(logFile, "w", 0o600);
  const parameters = [
    "--pidfile",
    pidFileIn(folder),
    "--blockdev",
    JSON.stringify({ ...topNode(chain, mode), "read-only": true }),
    "--nbd-server",
    `addr.type=unix,addr.path=${socket},max-connections=1`,
    "--export",
    `type=nbd,id=${EXPORT},node-name=${nodeOf(top.layer.id)},name=${EXPORT},writable=off,allocation-depth=on`,
  ];
  const child = spawn("qemu-storage-daemon", parameters, { stdio: ["ignore", log, log], cwd: "/" });
  closeSync(log);
  let failure: string | undefined;
  child.once("error", (error) => (failure = messageOf(error)));
  child.once("exit", (code, signal) => (failure ??= `it ended with ${code ?? signal}`));
  const deadline = performance.now() + START_LIMIT_MS;
  for (;;) {
    if (failure !== undefined) {
      const words = readFileSync(logFile, "utf8").slice(-1000);
      throw new RingsteadError("daemon-failed", `a snapshot cannot be opened: ${failure}: ${words}`);
    }
    const startTime = child.pid === undefined ? undefined : startTimeOf(child.pid);
    // The pid file is written when everything is open.
    if (child.pid !== undefined && startTime !== undefined && isWritten(pidFileIn(folder)))
      return { pid: child.pid, startTime };
    if (performance.now() >= deadline) {
      child.kill("SIGKILL");
      throw new RingsteadError("daemon-failed", "the daemon of a snapshot does not start");
    }
    await sleep(POLL_MS);
  }
};

const isWritten = (path: string): boolean => {
  try {
    return readFileSync(path, "utf8").endsWith("\n");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw error;
  }
};
