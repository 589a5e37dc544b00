import { type Ballot, type Incarnation, incarnationMadeBy, NO_INCARNATION } from "../../common/ballot.ts";
import type { Row, RowSummary } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "./container-place.ts";
import { row, type Script, write } from "./script.ts";

const HIGHEST_STAMP = "ffffffffffffffffffffffff";
const NOTHING = new Uint8Array();
const EMPTY: RowSummary = { rows: 0, objects: 0, bytes: 0, setHash: "" };

/** The container's row in its account. `version` begins with the incarnation: no late figure of one life covers a later one. */
export const accountRow = (name: string, version: Ballot, summary: RowSummary): Row => ({
  name,
  version,
  isDeleted: false,
  objects: summary.rows,
  bytes: summary.bytes,
  payload: NOTHING,
});

/** With the stamp of the making, lower than every version that carries figures: where it is listed already, nothing changes. */
const firstAccountRow = (name: string, incarnation: Incarnation): Row =>
  accountRow(name, (incarnation + incarnation) as Ballot, EMPTY);

const lastAccountRow = (name: string, incarnation: Incarnation): Row => ({
  ...accountRow(name, (incarnation + HIGHEST_STAMP) as Ballot, EMPTY),
  isDeleted: true,
});

/** The container stands in its account's listing. False where nothing can be said of that. */
export function* listInAccount<S>(place: ContainerPlace<S>, incarnation: Incarnation): Script<S, boolean> {
  const outcome = yield* row(place.account, NO_INCARNATION, firstAccountRow(place.name, incarnation));
  if (outcome !== "old") return outcome === "stored";
  // [E5]: a version of now is none of those that may have been deleted since; what is reported later is later still.
  const seen = yield* write(place.container, { kind: "inspect", version: undefined }, NO_INCARNATION);
  if (seen.kind !== "inspected") return false;
  const version = (incarnation + incarnationMadeBy(seen.ballot)) as Ballot;
  return (yield* row(place.account, NO_INCARNATION, accountRow(place.name, version, EMPTY))) === "stored";
}

/** The container stands there no more. False as above. */
export function* removeFromAccount<S>(place: ContainerPlace<S>, incarnation: Incarnation): Script<S, boolean> {
  return (yield* row(place.account, NO_INCARNATION, lastAccountRow(place.name, incarnation))) === "stored";
}
