import { appendFile, readFile, rename, stat } from "node:fs/promises";
import { codeOf } from "../../common/errors.ts";
import { devicePaths } from "../engine/paths.ts";

/** A full file becomes the one before, and that goes: a device keeps twice as much. */
const FILE_BYTES = 512 * 1024;

/** What was found damaged, or what became of it. */
export type HealEvent = {
  /** ISO 8601. */
  readonly at: string;
  /** What it is the entry of: a path such as `/account/container/object`, with the row's name behind " row " where it is a row. */
  readonly name: string;
  readonly event: "damaged" | "healed" | "not-healed";
  /** What was wrong, where it came from, or why it could not be had. */
  readonly detail: string;
};

/** What happened to the entries of a device that were damaged, for `ringstead explain`. Nothing depends on it. */
export class HealJournal {
  readonly #path: string;
  readonly #oldPath: string;
  #bytes: number | undefined;
  /** One write at a time. */
  #last: Promise<void> = Promise.resolve();

  /** @param devicePath the device's folder */
  constructor(devicePath: string) {
    [this.#path, this.#oldPath] = devicePaths(devicePath).heals;
  }

  /** Resolves when it is written, or could not be. */
  add(event: HealEvent): Promise<void> {
    this.#last = this.#last.then(() => this.#write(`${JSON.stringify(event)}\n`)).catch(() => {});
    return this.#last;
  }

  async #write(line: string): Promise<void> {
    this.#bytes ??= await sizeOf(this.#path);
    if (this.#bytes > 0 && this.#bytes + line.length > FILE_BYTES) {
      await rename(this.#path, this.#oldPath);
      this.#bytes = 0;
    }
    await appendFile(this.#path, line, { mode: 0o600 });
    this.#bytes += Buffer.byteLength(line);
  }

  /** The last events of the names that begin with `name` and are it or a row of it, oldest first. */
  async of(name: string, limit: number): Promise<HealEvent[]> {
    await this.#last;
    const found: HealEvent[] = [];
    for (const path of [this.#oldPath, this.#path]) {
      for (const line of (await textOf(path)).split("\n")) {
        // A line that power loss has cut says nothing.
        if (!line.includes(JSON.stringify(name).slice(1, -1)) || !line.endsWith("}")) continue;
        const event: HealEvent = JSON.parse(line);
        if (event.name === name || event.name.startsWith(`${name} row `)) found.push(event);
      }
    }
    return found.slice(-limit);
  }
}

const sizeOf = async (path: string): Promise<number> => {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return 0;
    throw error;
  }
};

const textOf = async (path: string): Promise<string> => {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return "";
    throw error;
  }
};
