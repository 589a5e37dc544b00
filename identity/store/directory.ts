import type { ListQuery } from "./records.ts";

/** A user as the drivers know one. `extra`: description, email and whatever else a client gave. */
export type DirectoryUser = {
  readonly id: string;
  readonly name: string;
  readonly domainId: string;
  /** False also for who has not logged in for longer than the operator allows. */
  readonly enabled: boolean;
  readonly defaultProjectId: string | null;
  readonly passwordExpiresAtMs: number | null;
  readonly options: Readonly<Record<string, unknown>>;
  readonly extra: Readonly<Record<string, unknown>>;
};

export type DirectoryGroup = {
  readonly id: string;
  readonly name: string;
  readonly domainId: string;
  readonly description: string;
  readonly extra: Readonly<Record<string, unknown>>;
};

/**
 * What a password check found. All but the first are a refused login; `expired` and `must-change` tell the owner, who proved to know the
 * password, why.
 */
type PasswordVerdict = "right" | "wrong" | "locked" | "expired" | "must-change";

/**
 * Where users and groups come from: SQL, or LDAP for the domains that say so. Ids are public ones, unique over all drivers. Absent things
 * are undefined or empty, and nothing here looks at whether they are enabled. Throws RingsteadError `database-unavailable` or
 * `directory-unavailable`.
 */
export type Directory = {
  findUser(id: string): Promise<DirectoryUser | undefined>;
  findUserByName(domainId: string, name: string): Promise<DirectoryUser | undefined>;
  /**
   * Conditions by `id`, `name`, `domain_id`, `enabled`, `password_expires_at_ms`; by `idp_id`, `protocol_id`, `unique_id` of federated users;
   * by `group_id` for the members of a group. `domain_id` or `group_id` chooses the driver; without either, it is SQL.
   */
  listUsers(query: ListQuery): Promise<DirectoryUser[]>;
  findGroup(id: string): Promise<DirectoryGroup | undefined>;
  findGroupByName(domainId: string, name: string): Promise<DirectoryGroup | undefined>;
  /** Conditions by `id`, `name`, `domain_id`; by `user_id` for the groups of a user. The driver is chosen as in `listUsers`. */
  listGroups(query: ListQuery): Promise<DirectoryGroup[]>;
  /** Ids, without memberships that have expired. */
  groupIdsOf(userId: string): Promise<string[]>;
  userIdsIn(groupId: string): Promise<string[]>;
  /** Counts failures and logins where the driver does. With no user it costs the same and says `wrong`: time does not tell the two apart. */
  verifyPassword(userId: string | undefined, password: string): Promise<PasswordVerdict>;
  /** Whether users and groups of this domain are kept here, so that they can be changed. */
  isWritable(domainId: string): Promise<boolean>;
};
