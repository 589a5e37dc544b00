import type { Generated, Kysely, Transaction } from "kysely";
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
};

type TypeExtraSpecsTable = { volume_type_id: string; key: string; value: string };
type TypeAccessTable = { volume_type_id: string; project_id: string };
/** `project_id` `class:default`: for every project that has no row of its own. */
type QuotaLimitsTable = { project_id: string; resource: string; hard_limit: number };
type ServicesTable = { node: string; disabled: number; disabled_reason: string | null; updated_at_ms: number };

export type BlockSchema = {
  volumes: VolumesTable;
  volume_metadata: VolumeMetadataTable;
  attachments: AttachmentsTable;
  tasks: TasksTable;
  volume_types: VolumeTypesTable;
  type_extra_specs: TypeExtraSpecsTable;
  type_access: TypeAccessTable;
  quota_limits: QuotaLimitsTable;
  services: ServicesTable;
};

export type BlockDatabase = Kysely<BlockSchema>;
export type BlockTransaction = Transaction<BlockSchema>;
