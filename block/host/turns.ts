/** Lets actions that name the same key run one after the other, in the order in which they came. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs the action once all earlier ones of each of the keys have ended. */
  async run<Result>(keys: readonly string[], action: () => Promise<Result>): Promise<Result> {
    const before = keys.flatMap((key) => this.#last.get(key) ?? []);
    const result = Promise.all(before).then(action);
    const ended = result.then(
      () => undefined,
      () => undefined,
    );
    for (const key of keys) this.#last.set(key, ended);
    try {
      return await result;
    } finally {
      for (const key of keys) if (this.#last.get(key) === ended) this.#last.delete(key);
    }
  }

  /** Resolves once everything that runs now has ended. */
  async quiet(): Promise<void> {
    await Promise.all(this.#last.values());
  }
}
