import type { LayerId } from "../core/chains.ts";

/** Where the bytes of a layer are, as QEMU's raw driver opens them. */
export type Place = {
  readonly path: string;
  /** QEMU opens files and block devices in different ways. */
  readonly kind: "file" | "device";
  readonly offset: number;
  /** Undefined where they reach to the end of the file, however far that will be. */
  readonly sizeBytes: number | undefined;
  /** Other layers are in the same file: its locks would be theirs. */
  readonly isShared: boolean;
  /** Space is taken when it is written to, and what is discarded reads as zeros. */
  readonly isThin?: true;
};

export type Capacity = {
  readonly totalBytes: number;
  /** What can be written to now, of the pool and of the file system below it. */
  readonly freeBytes: number;
  /** Space is taken when it is written to, not when it is asked for. */
  readonly isThin: boolean;
};

/**
 * Space for layers. Every call may be repeated: whoever was killed in the middle of it asks again. Layers are named by their ids alone; what is
 * in them, and which lies upon which, is nothing to a driver.
 */
export type Driver = AsyncDisposable & {
  readonly kind: "lvm" | "file";
  /** What is written past the end of a layer makes it longer: it needs no more than it begins with. */
  readonly growsByItself: boolean;
  capacity(): Promise<Capacity>;
  /** Resolves once there are `sizeBytes` that read as zeros, also after a power cut. Errors: "pool-full". */
  create(layer: LayerId, sizeBytes: number): Promise<void>;
  /**
   * Resolves with true once it has at least `sizeBytes`, the new ones zeros; with false, nothing changed, where it cannot grow where it is.
   * Errors: "pool-full".
   */
  grow(layer: LayerId, sizeBytes: number): Promise<boolean>;
  /** Resolves once the bytes are gone and the space is free; at once where there is no such layer. */
  remove(layer: LayerId): Promise<void>;
  /** Undefined where there is no such layer. */
  place(layer: LayerId): Promise<Place | undefined>;
  /** All layers that have space. */
  layers(): Promise<readonly LayerId[]>;
};
