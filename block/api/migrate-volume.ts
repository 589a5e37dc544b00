import { Type } from "typebox";
import { RingsteadError } from "../../common/errors.ts";
import { blockError } from "../core/block-error.ts";
import { snapshotsOf } from "../store/snapshots.ts";
import { visibleVolume } from "./block-route.ts";
import { action, type Actions, type Asked } from "./volume-action.ts";

const CLUSTER_SINCE = 16;
const optionalTruth = Type.Optional(Type.Unknown());

/** Throws what Cinder answers where a volume cannot go to `host`, and `not-implemented` where it could. */
const migrate = async ({ context, volume }: Asked, host: string): Promise<never> => {
  if (volume.status !== "available" && volume.status !== "in-use")
    throw blockError(
      "invalid-state",
      `Invalid volume: Volume ${volume.id} status must be available or in-use, but current status is: ${volume.status}.`,
    );
  if (volume.group_id !== null || (await snapshotsOf(context.database, volume.id)).length > 0)
    throw blockError(
      "invalid-state",
      `Invalid volume: Volume ${volume.id} must not be part of a group or have snapshots.`,
    );
  const { pools } = await context.hosts.reports();
  const found = pools.find(({ name }) => name === host || name.split("#", 1)[0] === host);
  if (found === undefined) throw blockError("bad-request", `Invalid host: No available service named ${host}`);
  if (found.name === volume.backend)
    throw blockError("bad-request", "Invalid host: Destination host must be different than the current host.");
  throw new RingsteadError("not-implemented", "Moving volumes between back-ends is not implemented.");
};

export const MIGRATE_ACTIONS: Actions = {
  "os-migrate_volume": action(
    "volume_extension:volume_admin_actions:migrate_volume",
    Type.Object({
      host: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
      cluster: Type.Optional(Type.Union([Type.String({ maxLength: 255 }), Type.Null()])),
      force_host_copy: optionalTruth,
      lock_volume: optionalTruth,
    }),
    ({ host, cluster }, asked) => {
      const isCluster = asked.caller.version >= CLUSTER_SINCE && typeof cluster === "string" && cluster !== "";
      if (isCluster) throw blockError("bad-request", `Invalid host: No available service named ${cluster}`);
      if (typeof host !== "string" || host === "")
        throw blockError("bad-request", "Must specify 'host' to migrate the volume to.");
      return migrate(asked, host);
    },
  ),
  "os-migrate_volume_completion": action(
    "volume_extension:volume_admin_actions:migrate_volume_completion",
    Type.Object({ new_volume: Type.String(), error: optionalTruth }),
    async ({ new_volume: other }, { context, caller, volume }) => {
      await visibleVolume(context.database, caller, other);
      throw blockError("invalid-state", `Invalid volume: Source volume ${volume.id} not mid-migration.`);
    },
  ),
};
