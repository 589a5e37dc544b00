import { readFileSync } from "node:fs";
import { Type } from "typebox";
import { Value } from "typebox/value";
import type { ProcessIdentity } from "../../../common/process-identity.ts";
import { replaceFile } from "../../../common/replace-file.ts";

const VERSION = 1;
const ROLE_OF_TARGETS = "tgtd";

const recordsSchema = Type.Object({
  version: Type.Literal(VERSION),
  daemons: Type.Array(
    Type.Object({ role: Type.String(), pid: Type.Integer({ minimum: 1 }), startTime: Type.Integer({ minimum: 0 }) }),
  ),
});

/** The tgtd that was written down last. Undefined where none was, or nothing sound stands there: it is found by its socket then. */
export const recordedTarget = (path: string): ProcessIdentity | undefined => {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
  if (!Value.Check(recordsSchema, value)) return undefined;
  const found = value.daemons.find(({ role }) => role === ROLE_OF_TARGETS);
  return found && { pid: found.pid, startTime: found.startTime };
};

/** Writes which processes iSCSI takes beside the volumes' own (FORMAT.md): tgtd, and the fronts by volume. */
export const writeIscsiProcesses = (
  path: string,
  target: ProcessIdentity | undefined,
  fronts: ReadonlyMap<string, ProcessIdentity>,
): void => {
  const of = (role: string, { pid, startTime }: ProcessIdentity) => ({ role, pid, startTime });
  const daemons = [
    ...(target === undefined ? [] : [of(ROLE_OF_TARGETS, target)]),
    ...[...fronts].map(([volumeId, identity]) => of(`iscsi:${volumeId}`, identity)),
  ];
  replaceFile(path, `${JSON.stringify({ version: VERSION, daemons }, undefined, 1)}\n`, 0o600);
};
