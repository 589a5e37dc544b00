/**
 * What was written to a disk whose cache may lose it: kept, as long as only that cache is known to have it.
 *
 *     begun ──answered──▶ kept ──a flush that began later succeeds──▶ forgotten
 *       └─────refused────────────────────────────────────────────────▶ forgotten
 *
 * A disk that lost its cache is given again, in their order, all that are kept: it then is as it was, and a flush says the truth. NFS clients
 * keep unstable writes until a COMMIT for the same reason (RFC 8881, 18.3). Writes that overlap and were under way together may be given again in
 * another order than the disk took them in, which nobody may rely on. Pure.
 */
export type UnflushedWrite = {
  readonly offset: number;
  readonly length: number;
  /** Undefined for zeros. */
  readonly bytes: Buffer | undefined;
};

type Entry = UnflushedWrite & { answeredAt: number };

/** Until it is answered, a write is before no flush. */
const NEVER = Number.POSITIVE_INFINITY;
/** What it takes to know of one write, beside its bytes. */
const ENTRY_BYTES = 256;

export class UnflushedWrites {
  /** In the order in which they came. */
  readonly #entries = new Set<Entry>();
  #answers = 0;
  #kept = 0;
  #bytes = 0;

  /** Memory that it takes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether everything that was answered is flushed. */
  get isEmpty(): boolean {
    return this.#kept === 0;
  }

  /** Those that were answered, in the order in which they came. */
  get kept(): readonly UnflushedWrite[] {
    return [...this.#entries].filter(({ answeredAt }) => answeredAt !== NEVER);
  }

  /** A write that is on its way. `bytes` have to stay what they are. */
  begin(offset: number, length: number, bytes: Buffer | undefined): UnflushedWrite {
    const entry: Entry = { offset, length, bytes, answeredAt: NEVER };
    this.#entries.add(entry);
    this.#bytes += sizeOf(entry);
    return entry;
  }

  /** The disk has it, perhaps only until it loses its cache. */
  answered(write: UnflushedWrite): void {
    const entry = write as Entry;
    this.#answers += 1;
    this.#kept += 1;
    entry.answeredAt = this.#answers;
  }

  /** It is not to be there, or cannot be. */
  forget(write: UnflushedWrite): void {
    const entry = write as Entry;
    if (!this.#entries.delete(entry)) return;
    this.#bytes -= sizeOf(entry);
    if (entry.answeredAt !== NEVER) this.#kept -= 1;
  }

  /** What to say to `flushed` once a flush succeeds that begins now. */
  mark(): number {
    return this.#answers;
  }

  flushed(mark: number): void {
    for (const entry of this.#entries) if (entry.answeredAt <= mark) this.forget(entry);
  }
}

const sizeOf = ({ bytes }: UnflushedWrite): number => ENTRY_BYTES + (bytes?.length ?? 0);
