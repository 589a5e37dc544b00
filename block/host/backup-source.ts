import { codeOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import type {
  Restoration,
  RestorationProgress,
  SnapshotChanges,
  SnapshotRange,
  VolumeData,
  VolumeWriter,
} from "../volume-data.ts";
import type { VolumeExport, WantedExport } from "../volume-host.ts";
import { type Chains, volumeOf } from "./core/chains.ts";
import type { PlacedLayer } from "./exports/block-graph.ts";
import { NbdConnection } from "./nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_WRITE, COMMAND_WRITE_ZEROES } from "./nbd-protocol.ts";
import type { HostPaths } from "./paths.ts";
import { SnapshotReader } from "./snapshot-reader.ts";

/** Who asks nothing for so long is gone, or waits for something else. */
const IDLE_LIMIT_MS = 60_000;
/** Longer than whoever restores goes on trying: then nobody comes back, and nothing else would close the volume. */
const WRITER_IDLE_LIMIT_MS = 900_000;
/** One request of NBD. */
const ZERO_LIMIT_BYTES = 512 * 1024 * 1024;

export type VolumeDataOptions = {
  readonly paths: HostPaths;
  readonly log: Log;
  chains(this: void): Chains;
  /** The chain from the layer down. */
  placed(this: void, volumeId: string, layer: string): Promise<readonly PlacedLayer[]>;
  /** Runs the action when nothing else is done with the volume. */
  inTurn<Result>(this: void, volumeId: string, action: () => Promise<Result>): Promise<Result>;
  stopCopy(this: void, volumeId: string): Promise<void>;
  /** As long as it is there nobody else opens the volume; rejects with "volume-in-use" where somebody has. */
  exportAlone(this: void, wanted: WantedExport): Promise<VolumeExport>;
  unexportVolume(this: void, volumeId: string, attachmentId: string): Promise<void>;
  restore(this: void, restoration: Restoration): Promise<void>;
  restoration(this: void, backupId: string): Promise<RestorationProgress>;
  /** In the place of the limit below, for tests. */
  readonly writerIdleMs?: number;
};

type Session = { readonly volumeId: string; readonly connection: NbdConnection; readonly idle: NodeJS.Timeout };
type Open = { readonly volumeId: string; readonly reader: SnapshotReader; idle: NodeJS.Timeout };

/**
 * Reads snapshots and writes restored volumes. A snapshot's layers are read by a daemon of its own; as long as one runs nothing of its volume is
 * merged (`isHeld`), and whoever drops the snapshot ends it first (`close`).
 */
export class LocalVolumeData implements VolumeData, AsyncDisposable {
  readonly #options: VolumeDataOptions;
  readonly #open = new Map<string, Open>();
  readonly #writers = new Map<string, Session>();

  constructor(options: VolumeDataOptions) {
    this.#options = options;
  }

  /** Layers of the volume are being read: they stay what they are. */
  isHeld(volumeId: string): boolean {
    return [...this.#open.values()].some((one) => one.volumeId === volumeId);
  }

  async changes({
    volumeId,
    snapshotId,
    baseId,
    offset,
    length,
  }: SnapshotRange & { readonly baseId?: string }): Promise<SnapshotChanges> {
    const reader = await this.#reader(volumeId, snapshotId);
    if (baseId === undefined) return { isRecorded: false, ...(await reader.changes(offset, length, undefined)) };
    const base = this.#options
      .chains()
      .volumes.get(volumeId)
      ?.snapshots.find(({ id }) => id === baseId);
    const newerLayers = base === undefined ? -1 : reader.layers.indexOf(base.layer);
    if (newerLayers >= 0) return { isRecorded: true, ...(await reader.changes(offset, length, newerLayers)) };
    return { isRecorded: false, coveredBytes: length, extents: [{ offset, length, isZero: false }] };
  }

  async read({ volumeId, snapshotId, offset, length }: SnapshotRange): Promise<Buffer> {
    return (await this.#reader(volumeId, snapshotId)).read(offset, length);
  }

  release(volumeId: string, snapshotId: string): Promise<void> {
    return this.#options.inTurn(volumeId, () => this.close(snapshotId));
  }

  /** The same for whoever has the volume's turn already. */
  async close(snapshotId: string): Promise<void> {
    const open = this.#open.get(snapshotId);
    if (open === undefined) return;
    clearTimeout(open.idle);
    await open.reader.end();
    this.#open.delete(snapshotId);
  }

  async begin(writer: VolumeWriter): Promise<void> {
    const { volumeId, writerId } = writer;
    this.#closeSession(writerId);
    const wanted = { volumeId, attachmentId: writerId, transport: "unix", isReadOnly: false } as const;
    const opened = await this.#options.exportAlone(wanted);
    if (opened.kind !== "nbd-unix")
      throw new RingsteadError("port-unavailable", `volume ${volumeId} is exported over TCP`);
    const connection = await NbdConnection.opened(opened.socketPath, opened.exportName, []);
    const idle = setTimeout(() => {
      this.end(writer).catch((error: unknown) =>
        this.#options.log.warn("a volume that was being restored cannot be closed", { volumeId, error }),
      );
    }, this.#options.writerIdleMs ?? WRITER_IDLE_LIMIT_MS).unref();
    this.#writers.set(writerId, { volumeId, connection, idle });
  }

  async write({ writerId }: VolumeWriter, offset: number, bytes: Buffer): Promise<void> {
    await this.#ask(writerId, COMMAND_WRITE, offset, bytes.length, bytes);
  }

  async zero({ writerId }: VolumeWriter, offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += ZERO_LIMIT_BYTES)
      await this.#ask(writerId, COMMAND_WRITE_ZEROES, offset + at, Math.min(ZERO_LIMIT_BYTES, length - at));
  }

  async flush({ writerId }: VolumeWriter): Promise<void> {
    await this.#ask(writerId, COMMAND_FLUSH, 0, 0);
  }

  async end({ volumeId, writerId }: VolumeWriter): Promise<void> {
    this.#closeSession(writerId);
    await this.#options.unexportVolume(volumeId, writerId);
  }

  restore(restoration: Restoration): Promise<void> {
    return this.#options.restore(restoration);
  }

  restoration(backupId: string): Promise<RestorationProgress> {
    return this.#options.restoration(backupId);
  }

  /** Whoever deletes a volume closes whatever has it open. */
  closeSessionsOf(volumeId: string): void {
    for (const [writerId, session] of this.#writers) if (session.volumeId === volumeId) this.#closeSession(writerId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const writerId of this.#writers.keys()) this.#closeSession(writerId);
    for (const snapshotId of this.#open.keys()) await this.close(snapshotId);
  }

  /** Not opened again: what it wrote before may not have reached the disk, and only who writes knows what that was. */
  async #ask(writerId: string, command: number, offset: number, length: number, bytes?: Buffer): Promise<void> {
    const session = this.#writers.get(writerId);
    const lost = new RingsteadError("writer-lost", "the volume that is written to was closed meanwhile");
    if (session?.connection.isOpen !== true) throw lost;
    session.idle.refresh();
    try {
      await session.connection.ask(command, offset, length, bytes);
    } catch (error) {
      throw codeOf(error) === "daemon-lost" ? lost : error;
    }
  }

  #closeSession(writerId: string): void {
    const session = this.#writers.get(writerId);
    if (session === undefined) return;
    clearTimeout(session.idle);
    session.connection[Symbol.dispose]();
    this.#writers.delete(writerId);
  }

  async #reader(volumeId: string, snapshotId: string): Promise<SnapshotReader> {
    const there = this.#open.get(snapshotId);
    if (there?.reader.isOpen === true) return this.#used(there, snapshotId);
    return this.#options.inTurn(volumeId, async () => {
      const meanwhile = this.#open.get(snapshotId);
      if (meanwhile?.reader.isOpen === true) return this.#used(meanwhile, snapshotId);
      await this.close(snapshotId);
      const { paths, placed, stopCopy, chains } = this.#options;
      const volume = volumeOf(chains(), volumeId);
      const snapshot = volume.snapshots.find(({ id }) => id === snapshotId);
      if (snapshot === undefined)
        throw new RingsteadError("no-such-snapshot", `there is no snapshot ${snapshotId} of that volume on this host`);
      await stopCopy(volumeId);
      const chain = await placed(volumeId, snapshot.layer);
      const reader = await SnapshotReader.opened(paths, snapshotId, chain, snapshot.sizeBytes);
      const open: Open = { volumeId, reader, idle: this.#idleTimer(volumeId, snapshotId) };
      this.#open.set(snapshotId, open);
      return reader;
    });
  }

  #used(open: Open, snapshotId: string): SnapshotReader {
    clearTimeout(open.idle);
    open.idle = this.#idleTimer(open.volumeId, snapshotId);
    return open.reader;
  }

  #idleTimer(volumeId: string, snapshotId: string): NodeJS.Timeout {
    const timer = setTimeout(() => {
      this.release(volumeId, snapshotId).catch((error: unknown) =>
        this.#options.log.warn("a snapshot that was read cannot be closed", { snapshotId, error }),
      );
    }, IDLE_LIMIT_MS);
    return timer.unref();
  }
}
