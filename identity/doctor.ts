import { stat } from "node:fs/promises";
import { sql } from "kysely";
import { isPostgres } from "../common/sql/dialect.ts";
import { messageOf } from "../common/errors.ts";
import { DEFAULT_DOMAIN_ID } from "./bootstrap.ts";
import type { CredentialCipher } from "./store/credential-cipher.ts";
import { placeOf } from "./store/domain-configurations.ts";
import type { IdentityPaths } from "./store/paths.ts";
import type { IdentityDatabase } from "./store/records.ts";

/** One thing that was looked at. `remedy`: what to do about a problem. */
export type Finding = { readonly check: string; readonly problem?: string; readonly remedy?: string };

export type DoctorOptions = {
  readonly database: IdentityDatabase;
  readonly cipher: CredentialCipher;
  readonly paths: IdentityPaths;
};

type Check = {
  readonly name: string;
  readonly remedy: string;
  readonly run: (options: DoctorOptions) => Promise<string | undefined>;
};

const countOf = async (database: IdentityDatabase, query: ReturnType<typeof sql<{ count: number }>>): Promise<number> =>
  Number((await query.execute(database)).rows[0]?.count ?? 0);

/** Rows of `table` that name something that is gone. */
const orphans = (table: string, column: string, target: string, condition = "1 = 1") =>
  sql<{ count: number }>`
    SELECT COUNT(*) AS count FROM ${sql.table(table)} t
    WHERE ${sql.raw(condition)} AND NOT EXISTS (SELECT 1 FROM ${sql.table(target)} o WHERE o.id = t.${sql.ref(column)})`;

const CHECKS: readonly Check[] = [
  {
    name: "the database is whole",
    remedy: "restore it from a backup: ringstead restore",
    run: async ({ database }) => {
      if (isPostgres(database)) return undefined;
      const { rows } = await sql<Record<string, unknown>>`PRAGMA integrity_check`.execute(database);
      const answers = rows.flatMap((row) => Object.values(row));
      return answers.length === 1 && answers[0] === "ok" ? undefined : answers.slice(0, 3).join("; ");
    },
  },
  {
    name: "every secret at rest can be read",
    remedy: "put back identity/keys/credential.key from a backup",
    run: async ({ database, cipher }) => {
      const credentials = await database.selectFrom("credentials").select(["id", "blob"]).execute();
      const options = await database
        .selectFrom("domain_configurations")
        .selectAll()
        .where("sensitive", "=", 1)
        .execute();
      let unreadable = 0;
      const tryOpen = (id: string, blob: Uint8Array): void => {
        try {
          cipher.open(id, blob);
        } catch {
          unreadable += 1;
        }
      };
      for (const { id, blob } of credentials) tryOpen(id, blob);
      for (const { domain_id, group_name, option_name, value } of options) {
        tryOpen(placeOf(domain_id, group_name, option_name), Buffer.from(value, "base64"));
      }
      return unreadable === 0 ? undefined : `${unreadable} of ${credentials.length + options.length} cannot`;
    },
  },
  {
    name: "keys and database are for their owner only",
    remedy: "chmod go-rwx the folder identity of the installation",
    run: async ({ paths }) => {
      const open: string[] = [];
      for (const path of [paths.root, paths.keysDir, paths.credentialKey]) {
        if (((await stat(path)).mode & 0o077) !== 0) open.push(path);
      }
      return open.length === 0 ? undefined : `others may look into ${open.join(", ")}`;
    },
  },
  {
    name: "no grant, trust or credential names what is gone",
    remedy: "tell us how it came to be; such rows give nobody a right",
    run: async ({ database }) => {
      const counts = [
        await countOf(database, orphans("assignments", "target_id", "projects", "target_kind <> 'system'")),
        await countOf(
          database,
          orphans(
            "assignments",
            "actor_id",
            "groups",
            "actor_kind = 'group' AND NOT EXISTS (SELECT 1 FROM id_mappings m WHERE m.public_id = t.actor_id)",
          ),
        ),
        await countOf(
          database,
          orphans(
            "assignments",
            "actor_id",
            "users",
            "actor_kind = 'user' AND NOT EXISTS (SELECT 1 FROM id_mappings m WHERE m.public_id = t.actor_id)",
          ),
        ),
        await countOf(database, orphans("project_tags", "project_id", "projects")),
        await countOf(
          database,
          orphans("trusts", "project_id", "projects", "project_id IS NOT NULL AND deleted_at_ms IS NULL"),
        ),
      ];
      const total = counts.reduce((sum, count) => sum + count, 0);
      return total === 0 ? undefined : `${total} rows do`;
    },
  },
  {
    name: "somebody can administer",
    remedy: "start with --admin-password: the user admin gets its role and password back",
    run: async ({ database }) => {
      const holders = await countOf(
        database,
        sql<{ count: number }>`
          SELECT COUNT(*) AS count FROM assignments a JOIN roles r ON r.id = a.role_id JOIN users u ON u.id = a.actor_id
          WHERE r.name = 'admin' AND r.domain_id IS NULL AND a.actor_kind = 'user' AND u.enabled = 1`,
      );
      return holders > 0 ? undefined : "no enabled user has the role admin";
    },
  },
  {
    name: "the default domain is enabled",
    remedy: "openstack domain set --enable default, with a token of another domain's administrator",
    run: async ({ database }) => {
      const domain = await database
        .selectFrom("projects")
        .select("enabled")
        .where("id", "=", DEFAULT_DOMAIN_ID)
        .executeTakeFirst();
      return domain?.enabled === 1 ? undefined : "it is not";
    },
  },
  {
    name: "every endpoint's service and region is enabled or there",
    remedy: "openstack endpoint list; openstack service list",
    run: async ({ database }) => {
      const count = await countOf(
        database,
        sql<{ count: number }>`
          SELECT COUNT(*) AS count FROM endpoints e JOIN services s ON s.id = e.service_id WHERE e.enabled = 1 AND s.enabled = 0`,
      );
      return count === 0 ? undefined : `${count} endpoints belong to services that are disabled, and are in no catalog`;
    },
  },
];

/** Looks at everything that can be wrong with what identity keeps. Reads only. */
export const examine = async (options: DoctorOptions): Promise<Finding[]> => {
  const findings: Finding[] = [];
  for (const { name, remedy, run } of CHECKS) {
    let problem: string | undefined;
    try {
      problem = await run(options);
    } catch (thrown) {
      problem = messageOf(thrown);
    }
    findings.push(problem === undefined ? { check: name } : { check: name, problem, remedy });
  }
  return findings;
};
