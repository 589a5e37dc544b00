import type { Kysely } from "kysely";
import type { Log } from "../log.ts";
import type { DatabaseServer } from "./database-config.ts";
import { openSqlite } from "./sqlite.ts";

/** What a service says of its database; where it is, the operator says. */
export type DatabaseOptions = {
  /** `ClusterConfig.database`. */
  readonly server: DatabaseServer | undefined;
  /** The schema with the service's tables on the server: at most 31 of `a-z`, `0-9` and `_`, a letter first. */
  readonly namespace: string;
  /** The service's file where there is no server. */
  readonly sqlitePath: string;
  readonly log: Log;
};

/**
 * Opens a service's database: the configured PostgreSQL server, or a SQLite file. Nothing is asked of a server yet; where it is away,
 * queries throw RingsteadError `database-unavailable` until it is back. The caller destroys the handle.
 */
export const openDatabase = async <Schema>(options: DatabaseOptions): Promise<Kysely<Schema>> => {
  const { server, namespace, sqlitePath, log } = options;
  if (server === undefined) return openSqlite<Schema>(sqlitePath);
  // Installations without a server, which are most, need not have its driver in memory.
  const { openPostgres } = await import("./postgres.ts");
  return openPostgres<Schema>(server, namespace, log);
};
