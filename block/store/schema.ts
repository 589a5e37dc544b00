import type { Generated, Kysely, Transaction } from "kysely";
import type { GroupSnapshotStatus, GroupStatus } from "../core/group-state.ts";
import type { SnapshotStatus } from "../core/snapshot-state.ts";
import type { BackupTables } from "./backup-schema.ts";
import type { AttachmentStatus, VolumeStatus } from "../core/volume-state.ts";

/*
 * The tables of FORMAT.md. Times are milliseconds since 1970, truth values 0 and 1, sizes GiB; `…_json` is JSON that the program itself wrote.
 */

export type VolumesTable = {
  id: string;
  project_id: string;
  user_id: string;
  name: string | null;
  description: string | null;
  size_gib: number;
  /** What it is being extended to: quotas count it already. */
  wanted_size_gib: number | null;
  status: VolumeStatus;
  previous_status: VolumeStatus | null;
  availability_zone: string;
  volume_type_id: string;
  /** `NODE@BACKEND#POOL` once it has a place. */
  backend: string | null;
  source_volume_id: string | null;
  snapshot_id: string | null;
  group_id: string | null;
  bootable: number;
  readonly: number | null;
  multiattach: number;
  /** Why it failed, in words. */
  failure: string | null;
  created_at_ms: number;
  updated_at_ms: number | null;
};

type VolumeMetadataTable = { volume_id: string; key: string; value: string };

export type AttachmentsTable = {
  id: string;
  volume_id: string;
  project_id: string;
  instance_uuid: string | null;
  attached_host: string | null;
  mountpoint: string | null;
  attach_mode: "rw" | "ro" | null;
  attach_status: AttachmentStatus;
  /** 1: opened by os-initialize_connection, which knows no attachments; not in lists. */
  is_connection: number;
  connector_json: string | null;
  connection_json: string | null;
  /** Limits that the client was told to keep. */
  qos_json: string | null;
  created_at_ms: number;
  attached_at_ms: number | null;
};

export type TasksTable = {
  id: Generated<number>;
  volume_id: string;
  task_json: string;
  /** Tries of this step that had no answer, and since when. */
  attempts: number;
  failing_since_ms: number | null;
  not_before_ms: number;
  /** The process that works on it, until when nobody else does. */
  owner: string | null;
  owned_until_ms: number;
};

export type VolumeTypesTable = {
  id: string;
  name: string;
  description: string | null;
  is_public: number;
  created_at_ms: number;
  qos_specs_id: string | null;
};

type TypeExtraSpecsTable = { volume_type_id: string; key: string; value: string };
type TypeAccessTable = { volume_type_id: string; project_id: string };
/** `project_id` `class:default`: for every project that has no row of its own. */
type QuotaLimitsTable = { project_id: string; resource: string; hard_limit: number };
type ServicesTable = { node: string; disabled: number; disabled_reason: string | null; updated_at_ms: number };

export type SnapshotsTable = {
  id: string;
  project_id: string;
  user_id: string;
  volume_id: string;
  name: string | null;
  description: string | null;
  /** Of the volume when it was taken. */
  size_gib: number;
  status: SnapshotStatus;
  /** `73%`, as somebody said. */
  progress: string | null;
  group_snapshot_id: string | null;
  failure: string | null;
  /** No two of one volume have the same: their order is that of the host. */
  created_at_ms: number;
  updated_at_ms: number | null;
};
type SnapshotMetadataTable = { snapshot_id: string; key: string; value: string };

export type MessagesTable = {
  id: string;
  project_id: string;
  resource_type: string;
  resource_uuid: string;
  /** `VOLUME_VOLUME_001_003`. */
  event_id: string;
  message_level: string;
  request_id: string | null;
  user_message: string;
  created_at_ms: number;
  /** Kept at least until then. */
  guaranteed_until_ms: number;
};

export type QosSpecsTable = {
  id: string;
  name: string;
  consumer: "front-end" | "back-end" | "both";
  created_at_ms: number;
};
type QosSpecPairsTable = { qos_specs_id: string; key: string; value: string };

export type TypeEncryptionTable = {
  volume_type_id: string;
  encryption_id: string;
  provider: string;
  cipher: string | null;
  key_size: number | null;
  control_location: "front-end" | "back-end";
  created_at_ms: number;
};
/** The type of a project's volumes that name none. */
type DefaultTypesTable = { project_id: string; volume_type_id: string };
type VolumeImageMetadataTable = { volume_id: string; key: string; value: string };

export type TransfersTable = {
  id: string;
  volume_id: string;
  name: string | null;
  /** Of the key that who accepts has to know, which is nowhere kept. */
  salt: string;
  key_hash: string;
  no_snapshots: number;
  /** Who offers it. */
  project_id: string;
  created_at_ms: number;
};

export type GroupTypesTable = {
  id: string;
  name: string;
  description: string | null;
  is_public: number;
  created_at_ms: number;
};
type GroupSpecsTable = { group_type_id: string; key: string; value: string };

export type GroupsTable = {
  id: string;
  project_id: string;
  user_id: string;
  name: string | null;
  description: string | null;
  status: GroupStatus;
  availability_zone: string;
  group_type_id: string;
  /** What it was made from. */
  group_snapshot_id: string | null;
  source_group_id: string | null;
  created_at_ms: number;
};
type GroupVolumeTypesTable = { group_id: string; volume_type_id: string };

export type GroupSnapshotsTable = {
  id: string;
  project_id: string;
  user_id: string;
  group_id: string;
  group_type_id: string;
  name: string | null;
  description: string | null;
  status: GroupSnapshotStatus;
  created_at_ms: number;
};

/** What a host has and the API was told to forget; it is at the host under the same id. */
export type UnmanagedTable = {
  id: string;
  kind: "volume" | "snapshot";
  /** Of a snapshot. */
  volume_id: string | null;
  backend: string;
  size_gib: number;
  created_at_ms: number;
};

export type BlockSchema = BackupTables & {
  volumes: VolumesTable;
  volume_metadata: VolumeMetadataTable;
  attachments: AttachmentsTable;
  tasks: TasksTable;
  volume_types: VolumeTypesTable;
  type_extra_specs: TypeExtraSpecsTable;
  type_access: TypeAccessTable;
  quota_limits: QuotaLimitsTable;
  services: ServicesTable;
  snapshots: SnapshotsTable;
  snapshot_metadata: SnapshotMetadataTable;
  messages: MessagesTable;
  qos_specs: QosSpecsTable;
  qos_spec_pairs: QosSpecPairsTable;
  type_encryption: TypeEncryptionTable;
  default_types: DefaultTypesTable;
  volume_image_metadata: VolumeImageMetadataTable;
  transfers: TransfersTable;
  group_types: GroupTypesTable;
  group_specs: GroupSpecsTable;
  volume_groups: GroupsTable;
  group_volume_types: GroupVolumeTypesTable;
  group_snapshots: GroupSnapshotsTable;
  unmanaged: UnmanagedTable;
};

export type BlockDatabase = Kysely<BlockSchema>;
export type BlockTransaction = Transaction<BlockSchema>;
