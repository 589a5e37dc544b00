import { readFile, rename, writeFile } from "node:fs/promises";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf } from "../../common/errors.ts";
import { devicePaths } from "../engine/paths.ts";

const count = Type.Integer({ minimum: 0 });
const milliseconds = Type.Number({ minimum: 0 });

const roundSchema = Type.Object({
  startedMs: milliseconds,
  /** Asked for by an operator: as fast as clients leave room for. */
  isDemanded: Type.Boolean(),
  phase: Type.Enum(["log", "entries"]),
  /** The next segment to look at, and the last of the round. */
  segment: count,
  lastSegment: count,
  /** The next key to look at, in hexadecimal digits. */
  key: Type.String({ pattern: "^([0-9a-f]{2})*$" }),
  /** Damaged ranges of the log: segment, from, to. */
  ranges: Type.Array(Type.Tuple([count, count, count])),
  bytes: count,
  entries: count,
  damaged: count,
});

const lastSchema = Type.Object({
  startedMs: milliseconds,
  endedMs: milliseconds,
  bytes: count,
  entries: count,
  /** Entries that it handed over to be healed. */
  damaged: count,
  /** Buckets whose sums were not what was counted; absent where nobody could count. */
  wrongDigests: Type.Optional(count),
});

const fileSchema = Type.Object({
  format: Type.Literal(1),
  round: Type.Optional(roundSchema),
  last: Type.Optional(lastSchema),
  /** When the last round began that was not stopped. */
  lastStartedMs: milliseconds,
});

/** A round under way. */
export type ScrubRound = Static<typeof roundSchema>;
/** The last round that came to its end. */
export type LastScrub = Static<typeof lastSchema>;
/** `scrub.json` of a device (`../engine/FORMAT.md`). */
export type ScrubRecord = {
  readonly round: ScrubRound | undefined;
  readonly last: LastScrub | undefined;
  readonly lastStartedMs: number;
};

/** A device whose file is absent or makes no sense was never scrubbed. */
const NEVER: ScrubRecord = { round: undefined, last: undefined, lastStartedMs: 0 };

/** Where the scrubber of a device keeps its place. */
export type ScrubRecordStore = {
  load(): Promise<ScrubRecord>;
  /** What a power loss takes of it is looked at again. */
  save(record: ScrubRecord): Promise<void>;
};

/** In the device's folder. */
export const scrubRecordFile = (devicePath: string): ScrubRecordStore => {
  const { scrub, newScrub } = devicePaths(devicePath);
  return {
    load: async () => {
      try {
        const found: unknown = JSON.parse(await readFile(scrub, "utf8"));
        if (!Value.Check(fileSchema, found)) return NEVER;
        return { round: found.round, last: found.last, lastStartedMs: found.lastStartedMs };
      } catch (error) {
        if (codeOf(error) === "ENOENT" || error instanceof SyntaxError) return NEVER;
        throw error;
      }
    },
    save: async (record) => {
      await writeFile(newScrub, `${JSON.stringify({ format: 1, ...record })}\n`, { mode: 0o600 });
      await rename(newScrub, scrub);
    },
  };
};
