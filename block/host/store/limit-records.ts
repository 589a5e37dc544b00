import { readFileSync } from "node:fs";
import { Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { replaceFile } from "../../../common/replace-file.ts";
import { LIMIT_NAMES, type VolumeLimits } from "../../core/qos-limits.ts";
import { volumeLimits } from "../../wire.ts";

const VERSION = 1;
const recordsSchema = Type.Object({
  version: Type.Literal(VERSION),
  limits: Type.Record(Type.String(), volumeLimits),
});

const read = (path: string): ReadonlyMap<string, VolumeLimits> => {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return new Map();
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (Value.Check(recordsSchema, value)) return new Map(Object.entries(value.limits));
  } catch {
    // Said below.
  }
  throw new RingsteadError("records-damaged", `${path} does not say what volumes may do: remove it to limit none`);
};

const isAlike = (one: VolumeLimits, other: VolumeLimits): boolean =>
  LIMIT_NAMES.every((name) => one[name] === other[name]);

/** The written limits of a host's volumes (FORMAT.md). */
export class LimitRecords {
  readonly #path: string;
  #limits: ReadonlyMap<string, VolumeLimits>;

  /** Errors: "records-damaged". */
  constructor(path: string) {
    this.#path = path;
    this.#limits = read(path);
  }

  of(volumeId: string): VolumeLimits {
    return this.#limits.get(volumeId) ?? {};
  }

  /** Replaces all of them; returns the volumes that have others now, once it is on the disk. */
  replace(limits: ReadonlyMap<string, VolumeLimits>): readonly string[] {
    const before = this.#limits;
    const changed = [...new Set([...before.keys(), ...limits.keys()])].filter(
      (volumeId) => !isAlike(before.get(volumeId) ?? {}, limits.get(volumeId) ?? {}),
    );
    if (changed.length === 0) return [];
    const written = { version: VERSION, limits: Object.fromEntries(limits) };
    replaceFile(this.#path, `${JSON.stringify(written, undefined, 1)}\n`, 0o600);
    this.#limits = limits;
    return changed;
  }
}
