import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { codeOf } from "../../common/errors.ts";
import { type DatabaseFixture, openDirectoryFixture } from "./directory-fixture.ts";
import { publicIdOf } from "./id-mappings.ts";
import { ldapContractEntries, ldapContractOptions } from "./ldap-contract-entries.ts";
import { type ListQuery, WHOLE_LIST } from "./records.ts";
import { LDAP_SUFFIX, SlapdFixture, whyNoSlapd } from "./slapd-fixture.ts";

const reason = whyNoSlapd();
/** More than a page, more than slapd gives at once, and more members than are looked up one by one. */
const CROWD = Array.from({ length: 1_200 }, (_, index) => ({ key: `crowd-${index}`, name: `Crowd ${index}` }));
const usersOf = (domainId: string): ListQuery => ({
  ...WHOLE_LIST,
  sortColumn: "name",
  conditions: [{ column: "domain_id", comparison: "equals", value: domainId }],
});

test("public ids are those that Keystone makes of the same entries", () => {
  // sha256 of domain, kind and local id behind one another.
  expect(publicIdOf("default", "user", "alice")).toBe(
    "c43e4dd25aba357630477a0f49fde7da8567b753ddd430c9555ad09aa2a76e9e",
  );
});

describe.skipIf(reason !== undefined)(`OpenLDAP${reason === undefined ? "" : ` (${reason})`}`, () => {
  let server: SlapdFixture;
  let fixture: DatabaseFixture;

  beforeAll(async () => {
    server = await SlapdFixture.start(ldapContractEntries(CROWD));
    fixture = await openDirectoryFixture();
  });
  afterAll(async () => {
    await fixture[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  const domainWith = (options: Readonly<Record<string, unknown>> = {}): Promise<string> =>
    fixture.addDomain({ ...ldapContractOptions(server.url), ...options });
  const codeOfFailure = (work: Promise<unknown>): Promise<string | undefined> =>
    work.then(
      () => undefined,
      (thrown: unknown) => codeOf(thrown),
    );

  test("lists have all entries of a directory that gives them in pages, and ids are kept", async () => {
    const domainId = await domainWith();
    const { directory, database } = fixture;
    const users = await directory.listUsers(usersOf(domainId));
    expect(users).toHaveLength(CROWD.length + 4);
    const first = users[0];
    expect(first?.id).toBe(publicIdOf(domainId, "user", "Alan"));
    const rows = await database.selectFrom("id_mappings").selectAll().where("domain_id", "=", domainId).execute();
    expect(rows).toHaveLength(users.length);
    // Only what was asked for came over.
    expect(JSON.stringify(users)).not.toContain("userPassword");
  });

  test("members of a large group are known from both sides", async () => {
    const domainId = await domainWith();
    const { directory } = fixture;
    const group = await directory.findGroupByName(domainId, "crowd");
    const member = await directory.findUserByName(domainId, "Crowd 7");
    expect(await directory.userIdsIn(group?.id ?? "")).toHaveLength(CROWD.length);
    expect(await directory.groupIdsOf(member?.id ?? "")).toEqual([group?.id]);
  });

  test("a filter of the operator leaves entries out, wherever they are asked for", async () => {
    const domainId = await domainWith({ user_filter: "(!(uid=crowd-*))", group_filter: "(!(cn=crowd))" });
    const { directory } = fixture;
    expect((await directory.listUsers(usersOf(domainId))).map(({ name }) => name)).toHaveLength(4);
    expect(await directory.findUserByName(domainId, "Crowd 7")).toBeUndefined();
    expect(await directory.findGroupByName(domainId, "crowd")).toBeUndefined();
    const broken = await domainWith({ user_filter: "(uid=" });
    expect(await codeOfFailure(directory.listUsers(usersOf(broken)))).toBe("directory-unavailable");
  });

  test("an entry that is named outside of the users' tree is no user", async () => {
    const domainId = await domainWith({ user_tree_dn: `ou=nowhere,${LDAP_SUFFIX}` });
    const { directory } = fixture;
    expect(await directory.listUsers(usersOf(domainId))).toEqual([]);
    const staff = await directory.findGroupByName(domainId, "staff");
    expect(await directory.userIdsIn(staff?.id ?? "")).toEqual([]);
  });

  test("another configuration of a domain counts from the next request", async () => {
    const domainId = await domainWith();
    const { directory } = fixture;
    expect((await directory.findUserByName(domainId, "alice"))?.enabled).toBe(true);
    await fixture.configure(domainId, { user_enabled_invert: true });
    expect((await directory.findUserByName(domainId, "alice"))?.enabled).toBe(false);
    await fixture.configure(domainId, { user_name_attribute: "uid" });
    expect((await directory.findUserByName(domainId, "odd"))?.name).toBe("odd");
    expect([await directory.isWritable(domainId), await directory.isWritable("default")]).toEqual([false, true]);
  });

  test("a wrong password of the service, and an address that is none, are told as a directory that is away", async () => {
    const { directory } = fixture;
    for (const options of [{ password: "wrong" }, { url: "http://127.0.0.1" }, { url: "nonsense" }]) {
      const domainId = await domainWith(options);
      expect(await codeOfFailure(directory.listUsers(usersOf(domainId)))).toBe("directory-unavailable");
    }
  });

  test("the second of two servers is asked when the first is away", async () => {
    const domainId = await domainWith({ url: `ldap://127.0.0.1:1,${server.url}` });
    expect((await fixture.directory.findUserByName(domainId, "alice"))?.name).toBe("alice");
  });

  test("a directory that is away fails its own domain at once, no other, and is asked again when it is back", async () => {
    const { directory } = fixture;
    const domainId = await domainWith();
    const alice = (await directory.findUserByName(domainId, "alice"))?.id ?? "";
    const own = await fixture.addDomain();
    await fixture.fill(own);
    await server.stop();
    try {
      const requests = [
        directory.findUser(alice),
        directory.groupIdsOf(alice),
        directory.listUsers(usersOf(domainId)),
        directory.verifyPassword(alice, "alice's password"),
      ];
      for (const request of requests) expect(await codeOfFailure(request)).toBe("directory-unavailable");
      const startedMs = performance.now();
      expect(await codeOfFailure(directory.findUser(alice))).toBe("directory-unavailable");
      expect(performance.now() - startedMs).toBeLessThan(500);
      expect(await directory.listUsers(usersOf(own))).toHaveLength(4);
    } finally {
      await server.run();
    }
    await expect.poll(() => codeOfFailure(directory.findUser(alice)), { timeout: 10_000 }).toBeUndefined();
    expect(await directory.verifyPassword(alice, "alice's password")).toBe("right");
  });

  test("a connection that the server closed while it lay idle is opened again unseen", async () => {
    const { directory } = fixture;
    const domainId = await domainWith();
    const alice = (await directory.findUserByName(domainId, "alice"))?.id ?? "";
    await server.stop();
    await server.run();
    expect((await directory.findUser(alice))?.name).toBe("alice");
  });

  test("a server that takes connections and never answers is given up after a while", async () => {
    const sockets = new Set<Socket>();
    const silent = createServer((socket) => sockets.add(socket)).listen(0, "127.0.0.1");
    await once(silent, "listening");
    const address = silent.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const domainId = await domainWith({ url: `ldap://127.0.0.1:${port}` });
    const startedMs = performance.now();
    expect(await codeOfFailure(fixture.directory.listUsers(usersOf(domainId)))).toBe("directory-unavailable");
    expect(performance.now() - startedMs).toBeLessThan(8_000);
    for (const socket of sockets) socket.destroy();
    silent.close();
  });

  test("members that are named by ids are found by them", async () => {
    const domainId = await domainWith({
      group_objectclass: "organizationalPerson",
      group_tree_dn: `ou=people,${LDAP_SUFFIX}`,
      group_id_attribute: "uid",
      group_name_attribute: "cn",
      // Here, for want of another attribute of texts, each user is the group of itself.
      group_member_attribute: "uid",
      group_members_are_ids: true,
      group_filter: "(uid=alice)",
    });
    const { directory } = fixture;
    const alice = await directory.findUserByName(domainId, "alice");
    const group = await directory.findGroupByName(domainId, "alice");
    expect(await directory.userIdsIn(group?.id ?? "")).toEqual([alice?.id]);
    expect(await directory.groupIdsOf(alice?.id ?? "")).toEqual([group?.id]);
  });

  test("with TLS a server is spoken to only when its certificate is the one of the configuration", async () => {
    const folder = mkdtempSync(join(tmpdir(), "ringstead-ldap-tls-"));
    const [certFile, keyFile] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
    const made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", keyFile, "-out", certFile];
    execFileSync("openssl", [...made, ...subject], { stdio: "pipe" });
    const secure = await SlapdFixture.start(ldapContractEntries(), { certFile, keyFile });
    try {
      const { directory } = fixture;
      const options = { ...ldapContractOptions(secure.url), use_tls: true };
      const trusted = await fixture.addDomain({ ...options, tls_cacertfile: certFile });
      const alice = await directory.findUserByName(trusted, "alice");
      expect(await directory.verifyPassword(alice?.id ?? "", "alice's password")).toBe("right");
      const stranger = await fixture.addDomain(options);
      expect(await codeOfFailure(directory.findUserByName(stranger, "alice"))).toBe("directory-unavailable");
      const careless = await fixture.addDomain({ ...options, tls_req_cert: "never" });
      expect((await directory.findUserByName(careless, "alice"))?.name).toBe("alice");
    } finally {
      await secure[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    }
  });
});
