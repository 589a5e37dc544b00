import type { HttpRequest } from "../../common/http/route.ts";
import type { Backups } from "../backup-service.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { type Backup, findBackup } from "../store/backups.ts";
import { pairsOf, type Pairs } from "../store/pairs.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { baseUrl, type BlockContext, type Caller, isUuid, mayDo, timeText } from "./block-route.ts";

const PROJECT_SINCE = 18;
const METADATA_SINCE = 43;
const USER_SINCE = 56;
const KEY_SINCE = 64;

/** Throws `host-unavailable` where there is nothing that backups could be kept in. */
export const offeredBackups = ({ backups }: BlockContext): Backups => {
  if (backups !== undefined) return backups;
  throw blockError(
    "host-unavailable",
    "Backups need the object service, which this installation does not run: start it with the service object.",
  );
};

type Asked = {
  readonly request: Pick<HttpRequest, "origin" | "path">;
  readonly context: BlockContext;
  readonly caller: Caller;
};

/** The backup, if the caller may know that it is there. Throws `not-found`. */
export const visibleBackup = async (database: BlockDatabase, caller: Caller, id: string): Promise<Backup> => {
  const backup = isUuid(id) ? await findBackup(database, id) : undefined;
  if (backup === undefined || (!caller.isAdmin && backup.project_id !== caller.token.projectId))
    throw notFound("Backup", id);
  return backup;
};

const linksOf = ({ request, context, caller }: Asked, id: string): readonly object[] => {
  const base = baseUrl(request, context, caller);
  return [
    { rel: "self", href: `${base}/backups/${id}` },
    { rel: "bookmark", href: `${base.replace("/v3", "")}/backups/${id}` },
  ];
};

export const backupSummary = (asked: Asked, backup: Backup, metadata?: Pairs): object => ({
  id: backup.id,
  name: backup.name,
  links: linksOf(asked, backup.id),
  ...(metadata !== undefined && asked.caller.version >= METADATA_SINCE ? { metadata } : {}),
});

/** A backup as the caller's microversion shows it. */
export const backupDetail = (asked: Asked, backup: Backup, metadata: Pairs): object => {
  const { context, caller } = asked;
  const { version } = caller;
  return {
    id: backup.id,
    name: backup.name,
    description: backup.description,
    status: backup.status,
    size: Number(backup.size_gib),
    object_count: Number(backup.object_count),
    availability_zone: backup.availability_zone,
    container: backup.container,
    created_at: timeText(backup.created_at_ms),
    updated_at: timeText(backup.updated_at_ms),
    data_timestamp: timeText(backup.data_timestamp_ms),
    fail_reason: backup.fail_reason,
    volume_id: backup.volume_id,
    snapshot_id: backup.snapshot_id,
    links: linksOf(asked, backup.id),
    is_incremental: backup.parent_id !== null,
    // Every backup is whole: those that were made after it go on without it.
    has_dependent_backups: false,
    ...(version >= PROJECT_SINCE && mayDo(context, caller, "backup:backup_project_attribute", backup.project_id)
      ? { "os-backup-project-attr:project_id": backup.project_id }
      : {}),
    ...(version >= METADATA_SINCE ? { metadata } : {}),
    ...(version >= USER_SINCE ? { user_id: backup.user_id } : {}),
    ...(version >= KEY_SINCE ? { encryption_key_id: null } : {}),
  };
};

export const backupMetadata = (database: BlockDatabase, id: string): Promise<Pairs> =>
  pairsOf(database, "backup_metadata", id);
