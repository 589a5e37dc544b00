import { type BlockRoute, blockRoute } from "./block-route.ts";
import { parameter, queryOf } from "./list-parameters.ts";

const SINCE = 33;

/** What lists of each kind of thing can be asked for. */
const FILTERS: Readonly<Record<string, readonly string[]>> = {
  volume: ["name", "status", "metadata", "bootable", "availability_zone", "group_id", "created_at", "updated_at"],
  snapshot: ["name", "status", "volume_id", "metadata"],
  backup: ["name", "status", "volume_id", "metadata"],
  group: ["name", "status"],
  group_snapshot: ["name", "status", "group_id"],
  attachment: ["volume_id", "status", "instance_id", "attach_status"],
  message: ["resource_uuid", "resource_type", "event_id", "request_id", "message_level"],
  pool: ["name"],
  volume_type: ["is_public"],
};

export const RESOURCE_FILTER_ROUTES: readonly BlockRoute[] = blockRoute({
  method: "GET",
  path: "/resource_filters",
  since: SINCE,
  request: {},
  handler: (request) => {
    const wanted = parameter(queryOf(request.query), "resource");
    const found = Object.entries(FILTERS).filter(([resource]) => wanted === undefined || wanted === resource);
    return {
      status: 200,
      body: { resource_filters: found.map(([resource, filters]) => ({ resource, filters })) },
    };
  },
});
