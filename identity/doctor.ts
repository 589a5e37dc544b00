import { existsSync } from "node:fs";
import { stat } from "node:fs/promises";
import { sql } from "kysely";
import type { ClusterConfig } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { silentLog } from "../common/log.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { openDatabase } from "../common/sql/database.ts";
import { isPostgres } from "../common/sql/dialect.ts";
import { DEFAULT_DOMAIN_ID } from "./bootstrap.ts";
import { type CredentialCipher, openCredentialCipher } from "./store/credential-cipher.ts";
import { placeOf } from "./store/domain-configurations.ts";
import { type IdentityPaths, identityPaths } from "./store/paths.ts";
import type { IdentityDatabase } from "./store/records.ts";
import { readSamlKeys } from "./store/saml-keys.ts";
import type { IdentitySchema } from "./store/schema.ts";

/** One thing that was looked at. `consequence`: what a problem costs; `remedy`: what to do about it. */
export type Finding = {
  readonly check: string;
  readonly problem?: string;
  readonly consequence: string;
  readonly remedy: string;
};

/** As long as an announced key and an operator's holidays take together. */
const CERTIFICATE_WARNING_MS = 60 * 86_400_000;

type DoctorOptions = {
  readonly database: IdentityDatabase;
  readonly cipher: CredentialCipher;
  readonly paths: IdentityPaths;
};

type Check = {
  readonly name: string;
  readonly consequence: string;
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
    consequence: "rows may be lost, and more with each day",
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
    consequence: "EC2 keys, TOTP secrets and passwords of directories that were sealed with it do not work",
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
    consequence: "who reads them can sign tokens and log in as anybody",
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
    name: "the keys of SAML assertions can be read, and their certificates hold",
    consequence: "service providers that look at dates refuse its assertions",
    remedy: "ringstead identity rotate-saml-key",
    run: async ({ paths }) => {
      const soonMs = Date.now() + CERTIFICATE_WARNING_MS;
      // One that is announced is the remedy already.
      const last = (await readSamlKeys(paths.keysDir)).at(-1);
      if (last === undefined || last.certificate.validToDate.getTime() > soonMs) return undefined;
      return `the last certificate ends on ${last.certificate.validToDate.toISOString()}`;
    },
  },
  {
    name: "no grant, trust or credential names what is gone",
    consequence: "lists show rows of what is not there",
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
    consequence: "nobody can change users, projects and services",
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
    consequence: "nobody of it can log in, admin neither",
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
    consequence: "clients do not find these services",
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
const examine = async (options: DoctorOptions): Promise<Finding[]> => {
  const findings: Finding[] = [];
  for (const { name, consequence, remedy, run } of CHECKS) {
    const base = { check: name, consequence, remedy };
    try {
      const problem = await run(options);
      findings.push(problem === undefined ? base : { ...base, problem });
    } catch (thrown) {
      findings.push({ ...base, problem: messageOf(thrown) });
    }
  }
  return findings;
};

/** The same of an installation, running or not. Errors: "no-installation"; what the database says. */
export const examineIdentity = async (
  installation: RuntimePaths,
  { database: server }: Pick<ClusterConfig, "database">,
): Promise<Finding[]> => {
  const paths = identityPaths(installation.identityDir);
  if (!existsSync(paths.credentialKey))
    throw new RingsteadError("no-installation", `there is no installation in ${installation.dataDir}`);
  const place = { server, namespace: "identity", sqlitePath: paths.database, log: silentLog };
  const database = await openDatabase<IdentitySchema>(place);
  try {
    return await examine({ database, cipher: await openCredentialCipher(paths.credentialKey), paths });
  } finally {
    await database.destroy();
  }
};
