/**
 * Processes that are stopped for a while, as by SIGSTOP or a virtual machine that is moved: they lose nothing and hear nothing, and whatever was sent to them, or is sent by
 * what they had begun, arrives when they go on. Nobody can tell that from one that does nothing meanwhile.
 */
export class StoppedProcesses {
  readonly #waiting = new Map<string, (() => void)[]>();

  isStopped(process: string): boolean {
    return this.#waiting.has(process);
  }

  stop(process: string): void {
    if (!this.isStopped(process)) this.#waiting.set(process, []);
  }

  /** Everything that waits comes at once, in the order in which it came. Of two stops that overlap the first end ends both. */
  goOn(process: string): void {
    const waiting = this.#waiting.get(process) ?? [];
    this.#waiting.delete(process);
    for (const deliver of waiting) deliver();
  }

  /** All go on. */
  end(): void {
    for (const process of this.#waiting.keys()) this.goOn(process);
  }

  /** A message between some processes: it arrives when none of them is stopped. */
  pass(processes: readonly string[], deliver: () => void): void {
    const stopped = processes.find((process) => this.isStopped(process));
    if (stopped === undefined) deliver();
    else this.#waiting.get(stopped)?.push(() => this.pass(processes, deliver));
  }
}
