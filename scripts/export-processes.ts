import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { releaseFilePool } from "../block/host/drivers/lvm-pool.ts";
import { hostPaths } from "../block/host/paths.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { endProcesses, type ProcessIdentity, startTimeOf } from "../common/process-identity.ts";

/** How often the file is looked at: ready.json names a new export so late at most. */
const LOOK_MS = 500;

const fileSchema = Type.Object({
  daemons: Type.Array(Type.Object({ role: Type.String(), pid: Type.Integer(), startTime: Type.Integer() })),
});
type ExportProcess = Readonly<Static<typeof fileSchema>["daemons"][number]>;

/** Where the block host says which processes serve volumes: they outlive it (block/host/store/FORMAT.md). */
const filesOf = ({ dataDir }: RuntimePaths): readonly string[] =>
  ["exports.json", "iscsi.json"].map((name) => join(dataDir, "block-host", name));

const livingIn = (file: string): readonly ExportProcess[] => {
  try {
    const value: unknown = JSON.parse(readFileSync(file, "utf8"));
    if (!Value.Check(fileSchema, value)) return [];
    return value.daemons
      .filter(({ pid, startTime }) => pid > 0 && startTimeOf(pid) === startTime)
      .map(({ role, pid, startTime }) => ({ role, pid, startTime }));
  } catch {
    return [];
  }
};

/** The living processes that serve volumes; none where nobody says so. */
export const exportProcesses = (paths: RuntimePaths): readonly ExportProcess[] => filesOf(paths).flatMap(livingIn);

const signatureOf = (paths: RuntimePaths): string =>
  filesOf(paths)
    .map((file) => statSync(file, { throwIfNoEntry: false, bigint: true }))
    .map((stat) => (stat === undefined ? "" : `${stat.ino} ${stat.mtimeNs}`))
    .join(";");

const ROLE_OF_TARGETS = "tgtd";
const ROLE_OF_DISKS = /^iscsi:/;

/**
 * Ends processes, those that serve volumes from the client's side on: tgtd first and at once, since it ignores SIGTERM, and tells clients of
 * errors where what it reads from goes before it, while without it they ask again; then the files that it has open; then all others.
 */
export const endFromAbove = async (
  processes: readonly (ProcessIdentity & { readonly role: string })[],
  graceMs: number,
): Promise<void> => {
  const [targets, disks] = [
    processes.filter(({ role }) => role === ROLE_OF_TARGETS),
    processes.filter(({ role }) => ROLE_OF_DISKS.test(role)),
  ];
  if (targets.length > 0) await endProcesses(targets, 0);
  if (disks.length > 0) await endProcesses(disks, graceMs);
  await endProcesses(
    processes.filter((one) => !targets.includes(one) && !disks.includes(one)),
    graceMs,
  );
};

/**
 * Takes down what the kernel still has of volumes: where it has device-mapper, daemons kept their layers' devices open when the block host ended.
 * Requires: neither runs.
 */
export const releaseVolumes = (paths: RuntimePaths): Promise<void> => releaseFilePool(hostPaths(paths).poolFile);

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
