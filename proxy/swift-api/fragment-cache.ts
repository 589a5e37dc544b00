/** Rendered pieces of listings by what they were rendered from, those used lately. */
export class FragmentCache {
  readonly #limitBytes: number;
  /** In the order of their last use. */
  readonly #fragments = new Map<string, Buffer>();
  #bytes = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  get(id: string): Buffer | undefined {
    const fragment = this.#fragments.get(id);
    if (fragment === undefined) return undefined;
    this.#fragments.delete(id);
    this.#fragments.set(id, fragment);
    return fragment;
  }

  /** Requires: `id` is not there. */
  add(id: string, fragment: Buffer): void {
    this.#fragments.set(id, fragment);
    this.#bytes += fragment.length;
    for (const [oldest, { length }] of this.#fragments) {
      if (this.#bytes <= this.#limitBytes) break;
      this.#fragments.delete(oldest);
      this.#bytes -= length;
    }
  }
}
