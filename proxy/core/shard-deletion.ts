import type { ContainerRecord } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "./container-place.ts";
import { deleteContainer, readContainer } from "./container-script.ts";
import type { Script } from "./script.ts";
import { type ChangeSettings, runChange } from "./shard-change.ts";
import { listContainer } from "./shard-list.ts";
import { placeRow } from "./shard-row.ts";

/** A deletion waits for so many changes of the listing. */
const RETRY_LIMIT = 20;

/** Whether a live row is there, which is in the listing then: to copy all of them first would take long. */
function* isInUse<S>(place: ContainerPlace<S>, record: ContainerRecord): Script<S, boolean> {
  const rows = yield* listContainer(place, record, {
    marker: "",
    endMarker: "",
    prefix: "",
    isReverse: false,
    limit: 1,
  });
  const [live] = typeof rows === "string" ? [] : rows;
  return live !== undefined && (yield* placeRow(place, record.incarnation, live)) === "stored";
}

/** [B3], after a change that is under way has ended. */
export function* deleteWhole<S>(
  place: ContainerPlace<S>,
  settings: ChangeSettings,
): Script<S, "deleted" | "absent" | "not-empty" | "no-space" | "unknown"> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const end = yield* deleteContainer(place);
    if (end !== "changing") return end;
    const found = yield* readContainer(place);
    if (found === "unavailable") return "unknown";
    if (found !== "absent" && (yield* isInUse(place, found.record))) return "not-empty";
    const changed = found === "absent" ? found : yield* runChange(place, found.record.incarnation, settings);
    if (changed === "unavailable") return "unknown";
    if (changed === "no-space") return changed;
  }
  return "unknown";
}
