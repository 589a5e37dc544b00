import { Type } from "typebox";
import { notFound } from "../core/block-error.ts";
import { type BlockRoute, blockRoute } from "./block-route.ts";

type Extension = {
  readonly alias: string;
  readonly name: string;
  readonly description: string;
  readonly updated: string;
};

/** What was once an extension of Cinder and is there in this version. */
const EXTENSIONS: readonly Extension[] = [
  ["os-admin-actions", "AdminActions", "Enable admin actions."],
  ["os-availability-zone", "AvailabilityZones", "Describe Availability Zones."],
  ["os-quota-class-sets", "QuotaClasses", "Quota classes management support."],
  ["os-quota-sets", "Quotas", "Quota management support."],
  ["os-services", "Services", "Services support."],
  ["os-types-extra-specs", "TypesExtraSpecs", "Type extra specs support."],
  ["os-types-manage", "TypesManage", "Types manage support."],
  ["os-used-limits", "UsedLimits", "Provide data on limited resources that are being used."],
  ["os-vol-host-attr", "VolumeHostAttribute", "Expose host as an attribute of a volume."],
  ["os-vol-mig-status-attr", "VolumeMigStatusAttribute", "Expose migration_status as an attribute of a volume."],
  ["os-vol-tenant-attr", "VolumeTenantAttribute", "Expose the internal project_id as an attribute of a volume."],
  ["os-volume-actions", "VolumeActions", "Enable volume actions."],
  ["os-volume-type-access", "VolumeTypeAccess", "Volume type access support."],
  ["scheduler-stats", "Scheduler_stats", "Scheduler stats support."],
].map(([alias = "", name = "", description = ""]) => ({
  alias,
  name,
  description,
  updated: "2016-06-01T00:00:00+00:00",
}));

const shown = (extension: Extension): object => ({ ...extension, links: [] });

export const EXTENSION_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/extensions",
    request: {},
    operation: "volume_extension:list_extensions",
    handler: () => ({ status: 200, body: { extensions: EXTENSIONS.map(shown) } }),
  }),
  ...blockRoute({
    method: "GET",
    path: "/extensions/:alias",
    request: { params: Type.Object({ alias: Type.String() }) },
    operation: "volume_extension:list_extensions",
    handler: (request) => {
      const found = EXTENSIONS.find(({ alias }) => alias === request.params.alias);
      if (found === undefined) throw notFound("Extension", request.params.alias);
      return { status: 200, body: { extension: shown(found) } };
    },
  }),
];
