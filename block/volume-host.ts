import type { VolumeLimits } from "./core/qos-limits.ts";

/**
 * What a block host does for the control plane. Every call is idempotent by the ids that it names: whoever does not know whether it was done
 * (the caller crashed, the answer was lost) makes it again, and gets the same answer. The caller decides (states, quotas, placement); the host
 * refuses only what would lose data. It keeps what it needs to go on by itself after a restart in its own folder.
 */
export type VolumeHost = {
  /** Pools with what is really free now. */
  pools(): Promise<readonly PoolReport[]>;
  /** Resolves once the volume can be exported, its first `sizeBytes` reading as its source does, or as zeros. Errors: "pool-full", "no-such-source", "source-filling" where that is restored and has not all of it yet. */
  createVolume(volume: NewVolume): Promise<void>;
  /** Its bytes are unreadable for whoever gets the space next before this resolves. Errors: "volume-in-use" while it is exported or others need its layers. */
  deleteVolume(volumeId: string): Promise<void>;
  /** Grows it, also while it is exported: clients see the size once this resolves. Errors: "pool-full", "volume-shrinks", "no-such-volume". */
  extendVolume(volumeId: string, sizeBytes: number): Promise<void>;
  /** A point in time that never changes; also while it is exported. Errors: "no-such-volume", "pool-full". */
  createSnapshot(volumeId: string, snapshotId: string): Promise<void>;
  /**
   * Its space comes back afterwards, when the layers that it kept apart are merged. Errors: "snapshot-in-use" where a volume cannot go on without
   * it.
   */
  deleteSnapshot(volumeId: string, snapshotId: string): Promise<void>;
  /** The volume's content becomes that of its latest snapshot. Errors: "volume-in-use", "no-such-snapshot". */
  revertVolume(volumeId: string, snapshotId: string): Promise<void>;
  /**
   * Has it made independent of all volumes that it shares layers with, in the background, also while it is exported; what others have stays as it
   * is. Resolves with how far that is: it is made again to ask. Errors: "no-such-volume".
   */
  flattenVolume(volumeId: string): Promise<FlattenProgress>;
  /**
   * Opens it for one attachment, on a daemon of the volume's own. Errors: "no-such-volume", "port-unavailable", "iscsi-unavailable", "volume-in-use"
   * while it is being restored.
   */
  exportVolume(wanted: WantedExport): Promise<VolumeExport>;
  /** Cuts off that attachment's clients and nobody else's, or, where none is named, all there are; the daemon ends with the last. */
  unexportVolume(volumeId: string, attachmentId?: string): Promise<void>;
  /**
   * What its volumes may do in a second from now on, whether they are exported or not; those that are not named are not limited. Where it rejects it is
   * made again, with the same limits: those that could not be set are tried anew.
   */
  limitVolumes(limits: ReadonlyMap<string, VolumeLimits>): Promise<void>;
  /** Exports as they are now, for status pages and ready.json. */
  exports(): Promise<readonly RunningExport[]>;
};

export type PoolReport = {
  /** Its name among this host's pools, such as `lvm`. */
  readonly pool: string;
  readonly driver: "lvm" | "file";
  readonly totalBytes: number;
  readonly freeBytes: number;
  /** What its volumes may grow to, all together. */
  readonly provisionedBytes: number;
  readonly volumeCount: number;
  readonly isThin: boolean;
  /** Why it takes no new volumes just now. */
  readonly failure: string | undefined;
};

export type NewVolume = {
  readonly volumeId: string;
  readonly pool: string;
  readonly sizeBytes: number;
  readonly source:
    | { readonly kind: "none" }
    | { readonly kind: "snapshot"; readonly volumeId: string; readonly snapshotId: string }
    | { readonly kind: "volume"; readonly volumeId: string };
};

export type FlattenProgress = {
  /** No layer of it is needed by others. */
  readonly isFlat: boolean;
  /** Of what is copied now, from 0 to 1. */
  readonly copiedShare: number;
  /** Why it is not copied just now; it is tried again. */
  readonly failure: string | undefined;
};

export type ExportTransport = "unix" | "tcp" | "iscsi";

export type WantedExport = {
  readonly volumeId: string;
  readonly attachmentId: string;
  /** `unix`: NBD on a private socket for clients on this host; `tcp`: NBD in TLS with a credential of this attachment; `iscsi`: with a CHAP secret of it. */
  readonly transport: ExportTransport;
  /** The initiator's name, which alone may log in; default: any that knows the secret. Only for `iscsi`. */
  readonly initiator?: string;
  readonly isReadOnly: boolean;
  /**
   * A write is answered when it would survive the death of the daemon and a power cut, as if the client flushed after each: for clients that
   * come back after a daemon's death and do not repeat what they wrote since their last flush. Writes take five to ten times as long. Default:
   * false.
   */
  readonly isWriteThrough?: boolean;
};

export type VolumeExport =
  | { readonly kind: "nbd-unix"; readonly socketPath: string; readonly exportName: string }
  | {
      readonly kind: "nbd-tls";
      readonly host: string;
      readonly port: number;
      readonly exportName: string;
      /** Folder with what the client needs for TLS: a PSK file or certificates, in the names that QEMU and nbd clients look for. */
      readonly credentialFolder: string;
    }
  | {
      readonly kind: "iscsi";
      readonly host: string;
      readonly port: number;
      readonly targetName: string;
      readonly diskNumber: number;
      /** CHAP; without them nobody logs in. */
      readonly username: string;
      readonly secret: string;
    };

export type RunningExport = {
  readonly volumeId: string;
  readonly attachmentIds: readonly string[];
  readonly pid: number;
  readonly startTime: number;
};
