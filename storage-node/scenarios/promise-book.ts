import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { loggedCount } from "./write-log.ts";

/**
 * What was asked of a device and what it promised, outside of the disk whose power is cut. `at` is the number of disk writes and
 * flushes logged by then. "seen" is what a new process found after the one before it was killed: read, so promised.
 */
type Line =
  | readonly ["asked", name: string, version: number, isAbsent: boolean, at: number]
  | readonly ["done" | "seen", name: string, version: number, at: number];

/** A state that a name may be in. */
export type Version = { readonly version: number; readonly isAbsent: boolean };

/** Version 0 of every name: it has never been there. */
const NEVER: Version = { version: 0, isAbsent: true };

/** Writes the book; each line is in the kernel's hands when the call returns, so that killing this process loses none. */
export class PromiseWriter implements Disposable {
  readonly #book: number;
  readonly #log: number;
  #position = 0;

  constructor(bookPath: string, writeLogPath: string) {
    this.#book = openSync(bookPath, "a");
    this.#log = openSync(writeLogPath, "r");
  }

  /** Requires: called in the turn that gives the mutation to the device, before that. */
  asked(name: string, { version, isAbsent }: Version): void {
    this.#write(["asked", name, version, isAbsent, this.#now()]);
  }

  done(name: string, version: number): void {
    this.#write(["done", name, version, this.#now()]);
  }

  seen(name: string, version: number): void {
    this.#write(["seen", name, version, this.#now()]);
  }

  /** Two flushes at once may write the log's count in either order; it never goes back. */
  #now(): number {
    this.#position = Math.max(this.#position, loggedCount(this.#log));
    return this.#position;
  }

  #write(line: Line): void {
    writeSync(this.#book, `${JSON.stringify(line)}\n`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#book);
    closeSync(this.#log);
  }
}

/** Reads the book. */
export class PromiseBook {
  readonly #lines = new Map<string, Line[]>();
  /** Writes logged when the first promise was given. */
  readonly firstDoneAt: number;
  readonly doneCount: number;

  constructor(path: string) {
    const lines = readFileSync(path, "utf8")
      .split("\n")
      .filter((text) => text !== "")
      .map((text) => JSON.parse(text) as Line);
    for (const line of lines) {
      const ofName = this.#lines.get(line[1]);
      if (ofName === undefined) this.#lines.set(line[1], [line]);
      else ofName.push(line);
    }
    const done = lines.filter(([kind]) => kind === "done");
    const [first] = done;
    if (first?.[0] !== "done") throw new Error("nothing was promised");
    this.firstDoneAt = first[3];
    this.doneCount = done.length;
  }

  get names(): Iterable<string> {
    return this.#lines.keys();
  }

  /** What a name may be after a power cut that kept the disk's first `kept` writes for certain, and maybe some of the first `seen`. */
  allowed(name: string, kept: number, seen: number): Version[] {
    let allowed: Version[] = [NEVER];
    for (const line of this.#lines.get(name) ?? []) {
      if (line[0] === "asked") {
        const [, , version, isAbsent, at] = line;
        if (at <= seen) allowed.push({ version, isAbsent });
        continue;
      }
      const [kind, , version, at] = line;
      if (at > kept) continue;
      if (kind === "done") allowed = allowed.filter((candidate) => candidate.version >= version);
      // What the earlier process asked for and nobody found was lost with it.
      else
        allowed = allowed.filter((candidate) => (version === 0 ? candidate.isAbsent : candidate.version === version));
    }
    return allowed;
  }
}
