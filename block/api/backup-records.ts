import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { assertBackupQuota, type Backup, findBackup } from "../store/backups.ts";
import { writePairs } from "../store/pairs.ts";
import { backupMetadata, backupSummary, visibleBackup } from "./backup-views.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, enforce, projectOf } from "./block-route.ts";
import { metadataSchema, uuidParams } from "./volume-fields.ts";

/** What reads records, in the form of a name of Cinder's drivers; another one is refused, as Cinder refuses those of another driver. */
const SERVICE = "cinder.backup.drivers.ringstead";
const RECORD_VERSION = 1;
const RECORD_LIMIT_CHARACTERS = 96 * 1024;

const uuid = Type.String({ pattern: "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" });
const text = Type.Union([Type.String({ maxLength: 255 }), Type.Null()]);
/** To the end of the year 9999: what is shown as a date has four digits for the year, and a Date ends soon after. */
const time = Type.Integer({ minimum: 0, maximum: 253_402_300_799_999 });

/** What is behind `backup_url`, as JSON in base64: where the backup is, and what it was called. It holds no key. */
const recordSchema = Type.Object(
  {
    version: Type.Literal(RECORD_VERSION),
    id: uuid,
    store_project_id: Type.String({ pattern: "^[0-9a-zA-Z-]{1,64}$" }),
    volume_id: uuid,
    name: text,
    description: text,
    container: text,
    availability_zone: text,
    size_gib: Type.Integer({ minimum: 1, maximum: 2_147_483_647 }),
    object_count: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    data_timestamp_ms: time,
    created_at_ms: time,
    is_incremental: Type.Boolean(),
    metadata: metadataSchema,
  },
  { additionalProperties: false },
);
type BackupRecord = Static<typeof recordSchema>;
const isRecord = Compile(recordSchema);

const recordOf = (backup: Backup, metadata: Readonly<Record<string, string>>): BackupRecord => ({
  version: RECORD_VERSION,
  id: backup.id,
  store_project_id: backup.store_project_id,
  volume_id: backup.volume_id,
  name: backup.name,
  description: backup.description,
  container: backup.container,
  availability_zone: backup.availability_zone,
  size_gib: Number(backup.size_gib),
  object_count: Number(backup.object_count),
  data_timestamp_ms: Number(backup.data_timestamp_ms),
  created_at_ms: Number(backup.created_at_ms),
  is_incremental: backup.parent_id !== null,
  metadata,
});

/** Throws `bad-request`. */
const decodeRecord = (service: string, url: string): BackupRecord => {
  const refuse = (why: string): never => {
    throw blockError("bad-request", `Invalid input received: Can't parse backup record: ${why}`);
  };
  if (service !== SERVICE)
    return refuse(`it is of the backup service ${service.slice(0, 100)}, and this is ${SERVICE}`);
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(url, "base64").toString("utf8"));
  } catch {
    return refuse("it is not JSON in base64");
  }
  return isRecord.Check(value) ? value : refuse(`it is no record of version ${RECORD_VERSION}`);
};

const importBackup = (context: BlockContext, caller: Caller, record: BackupRecord): Promise<Backup> =>
  withTransaction(context.writer, async (transaction) => {
    if ((await findBackup(transaction, record.id)) !== undefined)
      throw blockError("invalid-state", "Invalid backup: Backup already exists in database.");
    const projectId = projectOf(caller);
    await assertBackupQuota(transaction, projectId, record.size_gib);
    const { metadata, version: _, is_incremental: isIncremental, ...fields } = record;
    const row: Backup = {
      ...fields,
      project_id: projectId,
      user_id: caller.token.userId,
      snapshot_id: null,
      base_id: null,
      // Which one it was is not there any more, nor needed.
      parent_id: isIncremental ? record.id : null,
      volume_notes: null,
      status: "available",
      fail_reason: null,
      updated_at_ms: context.clock.nowMs(),
    };
    await transaction.insertInto("backups").values(row).execute();
    await writePairs(transaction, "backup_metadata", row.id, metadata, true);
    return row;
  });

export const BACKUP_RECORD_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/backups/:backup_id/export_record",
    request: { params: uuidParams("backup_id") },
    handler: async (request, context, caller) => {
      const backup = await visibleBackup(context.database, caller, request.params.backup_id);
      enforce(context, caller, "backup:export-import", backup.project_id);
      if (backup.status !== "available")
        throw blockError("invalid-state", `Invalid backup: Backup status must be available and not ${backup.status}.`);
      const record = recordOf(backup, await backupMetadata(context.database, backup.id));
      const url = Buffer.from(JSON.stringify(record)).toString("base64");
      return { status: 200, body: { "backup-record": { backup_service: SERVICE, backup_url: url } } };
    },
  }),
  ...blockRoute({
    method: "POST",
    path: "/backups/import_record",
    request: {
      body: Type.Object({
        "backup-record": Type.Object({
          backup_service: Type.String({ minLength: 1, maxLength: 255 }),
          backup_url: Type.String({ minLength: 1, maxLength: RECORD_LIMIT_CHARACTERS }),
        }),
      }),
    },
    operation: "backup:export-import",
    handler: async (request, context, caller) => {
      const { backup_service: service, backup_url: url } = request.body["backup-record"];
      const backup = await importBackup(context, caller, decodeRecord(service, url));
      return { status: 201, body: { backup: backupSummary({ request, context, caller }, backup) } };
    },
  }),
];
