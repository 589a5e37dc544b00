import { Type } from "typebox";
import { blockError, notFound } from "../core/block-error.ts";
import { type BlockRoute, blockRoute } from "./block-route.ts";

type Extension = {
  readonly alias: string;
  readonly name: string;
  readonly description: string;
  readonly updated: string;
};

/** What was once an extension of Cinder and is there in this version. */
const EXTENSIONS: readonly Extension[] = [
  ["capabilities", "Capabilities", "Capabilities support."],
  ["cgsnapshots", "Cgsnapshots", "Snapshots of consistency groups."],
  ["consistencygroups", "Consistencygroups", "Consistency groups."],
  ["encryption", "VolumeTypeEncryption", "Encryption support for volume types."],
  ["os-admin-actions", "AdminActions", "Enable admin actions."],
  ["os-availability-zone", "AvailabilityZones", "Describe Availability Zones."],
  ["os-extended-snapshot-attributes", "ExtendedSnapshotAttributes", "Extended SnapshotAttributes support."],
  ["os-hosts", "Hosts", "Admin-only host administration."],
  ["os-quota-class-sets", "QuotaClasses", "Quota classes management support."],
  ["os-quota-sets", "Quotas", "Quota management support."],
  ["os-services", "Services", "Services support."],
  ["os-snapshot-actions", "SnapshotActions", "Enable snapshot manager actions."],
  ["os-snapshot-manage", "SnapshotManage", "Allows existing backend storage to be 'managed' by Cinder."],
  ["os-snapshot-unmanage", "SnapshotUnmanage", "Enable volume unmanage operation."],
  ["os-types-extra-specs", "TypesExtraSpecs", "Type extra specs support."],
  ["os-types-manage", "TypesManage", "Types manage support."],
  ["os-used-limits", "UsedLimits", "Provide data on limited resources that are being used."],
  ["os-vol-host-attr", "VolumeHostAttribute", "Expose host as an attribute of a volume."],
  ["os-vol-image-meta", "VolumeImageMetadata", "Show image metadata associated with the volume."],
  ["os-vol-mig-status-attr", "VolumeMigStatusAttribute", "Expose migration_status as an attribute of a volume."],
  ["os-vol-tenant-attr", "VolumeTenantAttribute", "Expose the internal project_id as an attribute of a volume."],
  ["os-volume-actions", "VolumeActions", "Enable volume actions."],
  ["os-volume-encryption-metadata", "VolumeEncryptionMetadata", "Volume encryption metadata retrieval support."],
  ["os-volume-manage", "VolumeManage", "Allows existing backend storage to be 'managed' by Cinder."],
  ["os-volume-transfer", "VolumeTransfer", "Volume transfer management support."],
  ["os-volume-type-access", "VolumeTypeAccess", "Volume type access support."],
  ["os-volume-unmanage", "VolumeUnmanage", "Enable volume unmanage operation."],
  ["qos-specs", "Qos_specs_manage", "QoS specs support."],
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
  // Nothing can be added or taken out, which Cinder says so.
  ...blockRoute({
    method: "POST",
    path: "/extensions",
    request: {},
    operation: "volume_extension:list_extensions",
    handler: () => {
      throw blockError("not-found", "Extensions cannot be made.");
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/extensions/:alias",
    request: { params: Type.Object({ alias: Type.String() }) },
    operation: "volume_extension:list_extensions",
    handler: (request) => {
      throw notFound("Extension", request.params.alias);
    },
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
