import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { startTimeOf } from "../common/process-identity.ts";

/** How often the file is looked at: ready.json names a new export so late at most. */
const LOOK_MS = 500;

const fileSchema = Type.Object({
  daemons: Type.Array(Type.Object({ role: Type.String(), pid: Type.Integer(), startTime: Type.Integer() })),
});
type ExportProcess = Readonly<Static<typeof fileSchema>["daemons"][number]>;

/** Where the block host says which processes serve volumes: they outlive it (block/host/store/FORMAT.md). */
const fileOf = ({ dataDir }: RuntimePaths): string => join(dataDir, "block-host", "exports.json");

/** The living processes that serve volumes; none where nobody says so. */
export const exportProcesses = (paths: RuntimePaths): readonly ExportProcess[] => {
  try {
    const value: unknown = JSON.parse(readFileSync(fileOf(paths), "utf8"));
    if (!Value.Check(fileSchema, value)) return [];
    return value.daemons
      .filter(({ pid, startTime }) => pid > 0 && startTimeOf(pid) === startTime)
      .map(({ role, pid, startTime }) => ({ role, pid, startTime }));
  } catch {
    return [];
  }
};

const signatureOf = (paths: RuntimePaths): string => {
  const stat = statSync(fileOf(paths), { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? "" : `${stat.ino} ${stat.mtimeNs}`;
};

/** Calls `onChange` after volumes were exported or no longer are, until disposed of. */
export const watchExports = (paths: RuntimePaths, onChange: () => void): Disposable => {
  let last = signatureOf(paths);
  const timer = setInterval(() => {
    const now = signatureOf(paths);
    if (now === last) return;
    last = now;
    onChange();
  }, LOOK_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
};
