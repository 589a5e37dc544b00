import type { HttpRequest } from "../../common/http/route.ts";
import type { Attachment, Volume } from "../store/volumes.ts";
import { baseUrl, type BlockContext, type Caller, mayDo, timeText } from "./block-route.ts";

type Asked = {
  readonly request: Pick<HttpRequest, "origin" | "path">;
  readonly context: BlockContext;
  readonly caller: Caller;
};

/** Everything that a detailed view shows of a volume. */
export type ShownVolume = {
  readonly volume: Volume;
  readonly typeName: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly attachments: readonly Attachment[];
  readonly imageMetadata: Readonly<Record<string, string>>;
  readonly isInConsistencyGroup: boolean;
};

const linksOf = ({ request, context, caller }: Asked, id: string): readonly object[] => {
  const base = baseUrl(request, context, caller);
  return [
    { rel: "self", href: `${base}/volumes/${id}` },
    { rel: "bookmark", href: `${base.replace("/v3", "")}/volumes/${id}` },
  ];
};

export const volumeSummary = (asked: Asked, { id, name }: Pick<Volume, "id" | "name">): object => ({
  id,
  name,
  links: linksOf(asked, id),
});

const attachmentInVolume = (attachment: Attachment): object => ({
  id: attachment.volume_id,
  attachment_id: attachment.id,
  volume_id: attachment.volume_id,
  server_id: attachment.instance_uuid,
  host_name: attachment.attached_host,
  device: attachment.mountpoint,
  attached_at: timeText(attachment.attached_at_ms),
});

/** Where it is, whose it is: not in the answers of create and update, as in Cinder. */
const extensions = ({ context, caller }: Asked, { volume, imageMetadata }: ShownVolume): object => ({
  ...(Object.keys(imageMetadata).length > 0 &&
  mayDo(context, caller, "volume_extension:volume_image_metadata:show", volume.project_id)
    ? { volume_image_metadata: imageMetadata }
    : {}),
  ...(mayDo(context, caller, "volume_extension:volume_tenant_attribute", volume.project_id)
    ? { "os-vol-tenant-attr:tenant_id": volume.project_id }
    : {}),
  ...(mayDo(context, caller, "volume_extension:volume_host_attribute", volume.project_id)
    ? { "os-vol-host-attr:host": volume.backend }
    : {}),
  ...(mayDo(context, caller, "volume_extension:volume_mig_status_attribute", volume.project_id)
    ? { "os-vol-mig-status-attr:migstat": null, "os-vol-mig-status-attr:name_id": null }
    : {}),
});

/** A volume as the caller's microversion shows it. */
export const volumeDetail = (asked: Asked, shown: ShownVolume, withExtensions = true): object => {
  const { volume, attachments } = shown;
  const { version, isAdmin } = asked.caller;
  const readonly = volume.readonly === null ? {} : { readonly: volume.readonly === 1 ? "True" : "False" };
  return {
    id: volume.id,
    name: volume.name,
    description: volume.description,
    size: volume.size_gib,
    // Whoever has it open without the database: it is in use all the same.
    status: volume.status === "available" && asked.context.operatorExports.has(volume.id) ? "in-use" : volume.status,
    availability_zone: volume.availability_zone,
    created_at: timeText(volume.created_at_ms),
    updated_at: timeText(volume.updated_at_ms),
    attachments: attachments.filter((one) => one.attach_status === "attached").map(attachmentInVolume),
    volume_type: shown.typeName,
    snapshot_id: volume.snapshot_id,
    source_volid: volume.source_volume_id,
    metadata: { ...shown.metadata, ...readonly },
    links: linksOf(asked, volume.id),
    user_id: volume.user_id,
    bootable: String(volume.bootable === 1),
    encrypted: false,
    replication_status: null,
    consistencygroup_id: shown.isInConsistencyGroup ? volume.group_id : null,
    multiattach: volume.multiattach === 1,
    ...(isAdmin ? { migration_status: null } : {}),
    ...(version >= 13 ? { group_id: volume.group_id } : {}),
    ...(version >= 21 && isAdmin ? { provider_id: null } : {}),
    ...(version >= 48 ? { service_uuid: null, shared_targets: version >= 69 ? null : false } : {}),
    ...(version >= 61 && isAdmin ? { cluster_name: null } : {}),
    ...(version >= 63 ? { volume_type_id: volume.volume_type_id } : {}),
    ...(version >= 65 ? { consumes_quota: true } : {}),
    ...(withExtensions ? extensions(asked, shown) : {}),
  };
};
