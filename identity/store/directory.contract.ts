import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Directory } from "./directory.ts";
import { type Condition, LIST_MAX, type ListQuery } from "./records.ts";

/** A name with everything that filters and patterns look for. */
const ODD_NAME = String.raw`o'dd (*)\%_ ñ)(uid=*`;

/** Who is in a domain that the contract is shown on. */
export const CONTRACT_USERS = [
  { key: "alice", name: "alice", enabled: true, email: "alice@example.org", password: "alice's password" },
  { key: "Alan", name: "Alan", enabled: true, email: "alan@example.org", password: "alan's password" },
  { key: "bob", name: "bob", enabled: false, email: "bob@example.org", password: "bob's password" },
  { key: "odd", name: ODD_NAME, enabled: true, email: "odd@example.org", password: "odd's password" },
] as const;

/** Its groups, with keys of members. */
export const CONTRACT_GROUPS = [
  { key: "staff", name: "staff", description: "all of us", members: ["alice", "Alan", "bob"] },
  { key: "odd-group", name: `${ODD_NAME} group`, description: "", members: ["odd", "alice"] },
] as const;

export type DirectoryFixture = AsyncDisposable & { readonly directory: Directory; readonly domainId: string };

const equals = (column: string, value: string | number): Condition => ({ column, comparison: "equals", value });

/** What the service relies on, wherever a domain's users are. `open` makes a directory with CONTRACT_USERS and CONTRACT_GROUPS. */
export const directoryContract = (name: string, open: () => Promise<DirectoryFixture>): void => {
  describe(`${name}: a directory`, () => {
    let fixture: DirectoryFixture;
    let directory: Directory;
    let inDomain: Condition;

    beforeAll(async () => {
      fixture = await open();
      directory = fixture.directory;
      inDomain = equals("domain_id", fixture.domainId);
    });
    afterAll(() => fixture[Symbol.asyncDispose]());

    const query = (conditions: readonly Condition[], change: Partial<ListQuery> = {}): ListQuery => ({
      conditions,
      sortColumn: "name",
      descending: false,
      limit: LIST_MAX + 1,
      marker: undefined,
      ...change,
    });
    const userNames = async (...conditions: Condition[]): Promise<string[]> =>
      (await directory.listUsers(query([inDomain, ...conditions]))).map((user) => user.name);
    const idOf = async (userName: string): Promise<string> => {
      const user = await directory.findUserByName(fixture.domainId, userName);
      if (user === undefined) throw new Error(`no user ${userName}`);
      return user.id;
    };
    const groupIdOf = async (groupName: string): Promise<string> => {
      const group = await directory.findGroupByName(fixture.domainId, groupName);
      if (group === undefined) throw new Error(`no group ${groupName}`);
      return group.id;
    };

    it("finds a user by the id under which it is listed, and by its name", async () => {
      const listed = await directory.listUsers(query([inDomain]));
      expect(listed.map((user) => user.name)).toEqual(["Alan", "alice", "bob", ODD_NAME]);
      expect(new Set(listed.map(({ id }) => id)).size).toBe(CONTRACT_USERS.length);
      for (const user of listed) {
        expect(await directory.findUser(user.id)).toEqual(user);
        expect(await directory.findUserByName(fixture.domainId, user.name)).toEqual(user);
      }
      for (const { name: userName, enabled, email } of CONTRACT_USERS) {
        const user = listed.find((one) => one.name === userName);
        expect(user).toMatchObject({ domainId: fixture.domainId, enabled, extra: { email } });
        expect(user).toMatchObject({ defaultProjectId: null, passwordExpiresAtMs: null, options: {} });
      }
    });

    it("gives an id to a user once and for all", async () => {
      expect(await idOf("alice")).toBe(await idOf("alice"));
      expect(await idOf("alice")).toMatch(/^[0-9a-f]{32}([0-9a-f]{32})?$/);
    });

    it("knows nothing of what is not there", async () => {
      for (const id of ["", "nobody", "0".repeat(32), "0".repeat(64), "*", "__proto__"]) {
        expect(await directory.findUser(id)).toBeUndefined();
        expect(await directory.findGroup(id)).toBeUndefined();
        expect(await directory.groupIdsOf(id)).toEqual([]);
        expect(await directory.userIdsIn(id)).toEqual([]);
      }
      expect(await directory.findUser(await groupIdOf("staff"))).toBeUndefined();
      expect(await directory.findGroup(await idOf("alice"))).toBeUndefined();
      expect(await directory.listUsers(query([equals("domain_id", "nowhere")]))).toEqual([]);
    });

    it("takes signs in names for what they are", async () => {
      for (const userName of ["", "*", "al*", "a%", "ali_e", "alice)(cn=*", "*)(objectClass=*", "\\2a"]) {
        expect(await directory.findUserByName(fixture.domainId, userName)).toBeUndefined();
        expect(await directory.findGroupByName(fixture.domainId, userName)).toBeUndefined();
        if (userName !== "") expect(await userNames(equals("name", userName))).toEqual([]);
      }
      expect(await userNames({ column: "name", comparison: "startswith", value: "*" })).toEqual([]);
      expect(await userNames({ column: "name", comparison: "contains", value: "(*)" })).toEqual([ODD_NAME]);
      expect(await userNames({ column: "name", comparison: "contains", value: "%" })).toEqual([ODD_NAME]);
    });

    it("lists what fits all conditions", async () => {
      expect(await userNames(equals("name", "alice"))).toEqual(["alice"]);
      expect(await userNames({ column: "name", comparison: "equals", value: "ALICE" })).toEqual([]);
      expect(await userNames({ column: "name", comparison: "equals", ignoresCase: true, value: "ALICE" })).toEqual([
        "alice",
      ]);
      expect(await userNames({ column: "name", comparison: "startswith", value: "al" })).toEqual(["alice"]);
      const ignoring = { column: "name", comparison: "startswith", ignoresCase: true, value: "AL" } as const;
      expect(await userNames(ignoring)).toEqual(["Alan", "alice"]);
      expect(await userNames({ column: "name", comparison: "endswith", value: "b" })).toEqual(["bob"]);
      expect(await userNames(equals("enabled", 0))).toEqual(["bob"]);
      expect(await userNames(equals("enabled", 1), ignoring)).toEqual(["Alan", "alice"]);
      expect(await userNames({ column: "password_expires_at_ms", comparison: "gt", value: 0 })).toEqual([]);
      expect(await userNames(equals("unique_id", "x"))).toEqual([]);
    });

    it("gives a list in parts, in either direction, by name and by id", async () => {
      for (const sortColumn of ["name", "id"]) {
        for (const descending of [false, true]) {
          const order = { sortColumn, descending };
          const whole = await directory.listUsers(query([inDomain], order));
          const parts: unknown[] = [];
          for (let marker: string | undefined; ; ) {
            const part = await directory.listUsers(query([inDomain], { ...order, limit: 3, marker }));
            if (part.length === 0) break;
            parts.push(...part);
            marker = part.at(-1)?.id;
          }
          expect(parts).toEqual(whole);
        }
      }
      expect(await directory.listUsers(query([inDomain], { marker: "nobody" }))).toEqual([]);
    });

    it("shows groups as users", async () => {
      const listed = await directory.listGroups(query([inDomain]));
      expect(listed.map((group) => group.name)).toEqual([`${ODD_NAME} group`, "staff"].toSorted());
      for (const group of listed) {
        expect(await directory.findGroup(group.id)).toEqual(group);
        expect(await directory.findGroupByName(fixture.domainId, group.name)).toEqual(group);
      }
      expect(listed.find((group) => group.name === "staff")).toMatchObject({
        domainId: fixture.domainId,
        description: "all of us",
      });
      const starting = { column: "name", comparison: "startswith", value: "sta" } as const;
      expect((await directory.listGroups(query([inDomain, starting]))).map((group) => group.name)).toEqual(["staff"]);
    });

    it("knows memberships from both sides", async () => {
      const staff = await groupIdOf("staff");
      const odd = await groupIdOf(`${ODD_NAME} group`);
      const alice = await idOf("alice");
      const members = await Promise.all(["alice", "Alan", "bob"].map(idOf));
      expect((await directory.userIdsIn(staff)).toSorted()).toEqual(members.toSorted());
      expect((await directory.userIdsIn(odd)).toSorted()).toEqual([alice, await idOf(ODD_NAME)].toSorted());
      expect((await directory.groupIdsOf(alice)).toSorted()).toEqual([staff, odd].toSorted());
      expect(await directory.groupIdsOf(await idOf("bob"))).toEqual([staff]);
      const inStaff = equals("group_id", staff);
      expect(await userNames(inStaff)).toEqual(["Alan", "alice", "bob"]);
      expect(await userNames(inStaff, equals("enabled", 0))).toEqual(["bob"]);
      const part = await directory.listUsers(query([inStaff], { limit: 1, marker: await idOf("Alan") }));
      expect(part.map((user) => user.name)).toEqual(["alice"]);
      const ofAlice = await directory.listGroups(query([equals("user_id", alice), equals("name", "staff")]));
      expect(ofAlice.map(({ id }) => id)).toEqual([staff]);
    });

    it("takes a user's own password and no other", async () => {
      for (const { name: userName, password } of CONTRACT_USERS) {
        const id = await idOf(userName);
        expect(await directory.verifyPassword(id, password)).toBe("right");
        for (const wrong of ["", "wrong", `${password} `, "alice's password".repeat(50)]) {
          expect(await directory.verifyPassword(id, wrong)).toBe("wrong");
        }
      }
      expect(await directory.verifyPassword(undefined, "alice's password")).toBe("wrong");
      expect(await directory.verifyPassword("nobody", "alice's password")).toBe("wrong");
      expect(await directory.verifyPassword(await groupIdOf("staff"), "alice's password")).toBe("wrong");
    });
  });
};
