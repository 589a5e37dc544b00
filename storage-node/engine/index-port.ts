/** One change of the index; the shape that `classic-level` takes, so that nothing is converted on the way. */
export type IndexOperation =
  | { readonly type: "put"; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: "del"; readonly key: Uint8Array };

/** Every key lies between them. */
export const BEFORE_ALL = new Uint8Array(0);
export const BEHIND_ALL = new Uint8Array(4200).fill(0xff);

/** A scan over the index as it was when the cursor was made. */
export type IndexCursor = {
  /** At most `count` further entries; none at the end. */
  next(count: number): Promise<[Uint8Array, Uint8Array][]>;
  close(): Promise<void>;
};

/**
 * An ordered map from keys to small values, derived from the log. Implementations: `level-index.ts`, `memory-index.ts`, and over either
 * `filtered-index.ts`.
 */
export type Index = {
  get(key: Uint8Array): Uint8Array | undefined;
  /** Visible when it resolves; durable some time later, in order. */
  write(operations: IndexOperation[]): Promise<void>;
  /** Makes durable everything written before the call, then `checkpoint`. */
  checkpoint(checkpoint: Uint8Array): Promise<void>;
  /** The newest durable checkpoint. */
  readCheckpoint(): Uint8Array | undefined;
  cursor(range: { gte: Uint8Array; lt: Uint8Array; reverse: boolean }): IndexCursor;
  close(): Promise<void>;
};

/** How a device gets its index. `fresh` throws away what there is. */
export type OpenIndex = (path: string, fresh: boolean) => Promise<Index>;
