import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../common/clock.ts";
import { silentLog } from "../../common/log.ts";
import { openDatabase } from "../../common/sql/database.ts";
import type { DatabaseServer } from "../../common/sql/database-config.ts";
import { runMigrations } from "../../common/sql/migrations.ts";
import { parseIdentityConfig } from "../config.ts";
import { type Changes, createChanges } from "./changes.ts";
import { createCredentialCipher } from "./credential-cipher.ts";
import type { Directory } from "./directory.ts";
import { CONTRACT_GROUPS, CONTRACT_USERS } from "./directory.contract.ts";
import { writeOptions } from "./domain-configurations.ts";
import { createDomainDirectory } from "./domain-directory.ts";
import { IDENTITY_MIGRATIONS } from "./migrations.ts";
import { createPasswordHasher } from "./password-hasher.ts";
import { storePassword } from "./passwords.ts";
import { ReadCache } from "./read-cache.ts";
import { type IdentityDatabase, newId } from "./records.ts";
import type { IdentitySchema } from "./schema.ts";
import { createSqlDirectory } from "./sql-directory.ts";

const cipher = createCredentialCipher(() => [Buffer.alloc(32, 7)]);

/** A database of a test with the directory of all its domains. */
export type DatabaseFixture = AsyncDisposable & {
  readonly database: IdentityDatabase;
  readonly changes: Changes;
  readonly directory: Directory;
  /** A new domain; with `ldap` its users are there. */
  addDomain(ldap?: Readonly<Record<string, unknown>>): Promise<string>;
  /** Puts CONTRACT_USERS and CONTRACT_GROUPS into the domain. */
  fill(domainId: string): Promise<void>;
  /** Sets further options of the group `ldap`. */
  configure(domainId: string, options: Readonly<Record<string, unknown>>): Promise<void>;
};

/** In a temporary folder, or on `server` in a namespace of its own. `settings`: the table `[identity]`. */
export const openDirectoryFixture = async (
  server?: DatabaseServer,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<DatabaseFixture> => {
  await using opening = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "ringstead-directory-"));
  opening.defer(() => rmSync(folder, { recursive: true }));
  const place = { server, namespace: "directory", sqlitePath: join(folder, "identity.db"), log: silentLog };
  const database = await openDatabase<IdentitySchema>(place);
  opening.defer(() => database.destroy());
  const writer = server === undefined ? await openDatabase<IdentitySchema>(place) : database;
  if (writer !== database) opening.defer(() => writer.destroy());
  await runMigrations(writer, IDENTITY_MIGRATIONS, 0);
  const changes = createChanges({
    database: writer,
    clock: systemClock,
    onListenerError: (error) => {
      throw error;
    },
  });
  const cache = new ReadCache();
  changes.onCommit(() => cache.clear());
  const config = parseIdentityConfig(settings);
  const hasher = await createPasswordHasher(config.passwordHash);
  const sql = createSqlDirectory({ database, changes, hasher, clock: systemClock, config });
  const directory = opening.use(
    createDomainDirectory({ sql, database, changes, cache, cipher, hasher, clock: systemClock }),
  );

  const configure: DatabaseFixture["configure"] = (domainId, given) =>
    changes.write((transaction) =>
      writeOptions(
        transaction,
        cipher,
        domainId,
        Object.entries(given).map(([option, value]) => ({ group: "ldap", option, value })),
      ),
    );

  const addDomain: DatabaseFixture["addDomain"] = async (ldap) => {
    const id = newId();
    const state = { description: "", enabled: 1, options: "{}", extra: "{}" };
    await changes.write((transaction) =>
      transaction
        .insertInto("projects")
        .values({ id, domain_id: null, parent_id: null, is_domain: 1, name: id, ...state })
        .execute(),
    );
    if (ldap === undefined) return id;
    await changes.write((transaction) =>
      writeOptions(transaction, cipher, id, [{ group: "identity", option: "driver", value: "ldap" }]),
    );
    await configure(id, ldap);
    return id;
  };

  const fill: DatabaseFixture["fill"] = async (domainId) => {
    const ids = new Map<string, string>();
    for (const { key, name, enabled, email, password } of CONTRACT_USERS) {
      const id = newId();
      ids.set(key, id);
      const hash = await hasher.hash(password);
      const who = { id, domain_id: domainId, name, default_project_id: null, enabled: Number(enabled) };
      const state = { created_at_ms: 0, last_active_at_ms: null, failed_login_count: 0, failed_login_at_ms: null };
      await changes.write(async (transaction) => {
        const row = { ...who, ...state, options: "{}", extra: JSON.stringify({ email }) };
        await transaction.insertInto("users").values(row).execute();
        await storePassword(transaction, { userId: id, hash, atMs: 0, expiresAtMs: null, selfService: false }, 0);
      });
    }
    for (const { name, description, members } of CONTRACT_GROUPS) {
      const id = newId();
      await changes.write(async (transaction) => {
        await transaction
          .insertInto("groups")
          .values({ id, domain_id: domainId, name, description, extra: "{}" })
          .execute();
        for (const member of members) {
          const row = { group_id: id, user_id: ids.get(member) ?? "", expires_at_ms: null };
          await transaction.insertInto("group_members").values(row).execute();
        }
      });
    }
  };

  const open = opening.move();
  return {
    database,
    changes,
    directory,
    addDomain,
    fill,
    configure,
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
};
