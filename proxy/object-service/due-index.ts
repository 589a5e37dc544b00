import { type Ballot, NO_INCARNATION } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { xxh64OfString } from "../../common/hash.ts";
import type { Row } from "../../storage-node/wire.ts";
import { dueBefore, dueRow, handledRow } from "../core/expiry.ts";
import { listRows } from "../core/list-rows.ts";
import type { DueRow } from "../core/object-script.ts";
import { row } from "../core/script.ts";
import type { DueRows } from "../daemons/expirer.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { ScriptRunner } from "./script-runner.ts";

/**
 * The index of due times lies in row spaces of accounts that nobody can have: names of real accounts do not begin with a dot. So it is
 * spread over the ring, and moves and is repaired as other rows are. More shards spread more, and cost the expirer a question each.
 */
const DUE_SHARD_COUNT = 8;

const shardSet = (partitions: Partitions, shard: number): ReplicaSet => partitions.account(`.due-${shard}`);

export const dueRowOf = (
  partitions: Partitions,
  path: string,
  deleteAt: number,
  version: Ballot,
): DueRow<ReplicaSet> => {
  const shard = Number(xxh64OfString(path) % BigInt(DUE_SHARD_COUNT));
  return { set: shardSet(partitions, shard), row: dueRow(deleteAt, path, version) };
};

/** What the expirer sees of the index. */
export class DueIndex implements DueRows {
  readonly shardCount = DUE_SHARD_COUNT;
  readonly #partitions: Partitions;
  readonly #runner: ScriptRunner;

  constructor(partitions: Partitions, runner: ScriptRunner) {
    this.#partitions = partitions;
    this.#runner = runner;
  }

  /** The earliest rows of a shard that are due at `nowMs`. Errors: "quorum-unavailable". */
  async due(shard: number, nowMs: number, limit: number): Promise<readonly Row[]> {
    const query = { marker: "", endMarker: dueBefore(nowMs), prefix: "", isReverse: false, limit };
    const rows = await this.#runner.run(listRows(shardSet(this.#partitions, shard), NO_INCARNATION, query));
    if (typeof rows === "string") throw this.#unavailable();
    return rows;
  }

  /** Takes a row out of the index, unless the object was written again with the same due time. Errors: "quorum-unavailable". */
  async handled(shard: number, due: Row): Promise<void> {
    const outcome = await this.#runner.run(row(shardSet(this.#partitions, shard), NO_INCARNATION, handledRow(due)));
    if (outcome !== "stored") throw this.#unavailable();
  }

  #unavailable(): RingsteadError {
    return new RingsteadError("quorum-unavailable", "too few replicas of the index of due times answer");
  }
}
