import type { StatusStep } from "../core/lifecycle.ts";
import type { BlockTransaction } from "./schema.ts";

/** Writes the status after a step; resolves with those in which the step is allowed where it is not in this one. */
export const writeStatus = async <Status extends string>(
  transaction: BlockTransaction,
  table: "snapshots" | "backups",
  id: string,
  step: StatusStep<Status>,
  nowMs: number,
): Promise<readonly Status[] | undefined> => {
  if (step.kind === "refused") return step.allowed;
  // Each table's own step gives statuses of that table.
  const values = { status: step.status, updated_at_ms: nowMs } as { status: "available"; updated_at_ms: number };
  await transaction.updateTable(table).set(values).where("id", "=", id).execute();
  return undefined;
};
