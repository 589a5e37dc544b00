import { readFileSync, statSync } from "node:fs";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { replaceFile } from "../../common/replace-file.ts";

const FILE_MODE = 0o644;
const POLL_MS = 500;

const fileSchema = Type.Object(
  {
    paused: Type.Boolean(),
    bytes_per_second: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
    operations_per_second: Type.Optional(Type.Number({ exclusiveMinimum: 0 })),
  },
  { additionalProperties: false },
);

/** What an operator says of repair: whether it goes on, and how much of it each device may do. Undefined: as much as it can. */
export type RepairSettings = {
  readonly isPaused: boolean;
  readonly bytesPerSecond: number | undefined;
  readonly operationsPerSecond: number | undefined;
};

const NO_SETTINGS: RepairSettings = { isPaused: false, bytesPerSecond: undefined, operationsPerSecond: undefined };

/** What is in DIR/repair.json; where there is none, nothing is held back. Errors: "bad-repair-settings", Node's system errors. */
export const readRepairSettings = (path: string): RepairSettings => {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return NO_SETTINGS;
    throw error;
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (!Value.Check(fileSchema, value)) {
    throw new RingsteadError(
      "bad-repair-settings",
      `${path} is not what "ringstead repair" writes: remove it, then say again what you want`,
      { path },
    );
  }
  const file: Static<typeof fileSchema> = value;
  return {
    isPaused: file.paused,
    bytesPerSecond: file.bytes_per_second,
    operationsPerSecond: file.operations_per_second,
  };
};

/** Replaces them; who repairs follows within a second. Throws Node's system errors. */
export const writeRepairSettings = (path: string, settings: RepairSettings): void => {
  const file: Static<typeof fileSchema> = { paused: settings.isPaused };
  if (settings.bytesPerSecond !== undefined) file.bytes_per_second = settings.bytesPerSecond;
  if (settings.operationsPerSecond !== undefined) file.operations_per_second = settings.operationsPerSecond;
  replaceFile(path, `${JSON.stringify(file, undefined, 2)}\n`, FILE_MODE);
};

/** The settings as they are now, read again when they change. Of a file that cannot be read the last ones stay. */
export class WatchedRepairSettings implements Disposable {
  readonly #path: string;
  readonly #log: Log;
  readonly #timer: NodeJS.Timeout;
  #version: string | undefined;
  #now = NO_SETTINGS;

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
    this.#look();
    this.#timer = setInterval(() => this.#look(), POLL_MS);
    this.#timer.unref();
  }

  get now(): RepairSettings {
    return this.#now;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    try {
      const stat = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
      const version = stat === undefined ? "none" : `${stat.ino} ${stat.mtimeNs} ${stat.size}`;
      if (version === this.#version) return;
      this.#version = version;
      this.#now = readRepairSettings(this.#path);
      if (stat !== undefined) this.#log.info("the settings of repair were read", { ...this.#now });
    } catch (error) {
      this.#log.error("the settings of repair cannot be read; the last ones stay", { error: messageOf(error) });
    }
  }
}
