import { expect, test } from "vitest";
import { PostgresFixture, whyNoPostgres } from "../../common/sql/postgres-fixture.ts";
import { directoryContract } from "./directory.contract.ts";
import { openDirectoryFixture } from "./directory-fixture.ts";
import { ldapContractEntries, ldapContractOptions } from "./ldap-contract-entries.ts";
import { SlapdFixture, whyNoSlapd } from "./slapd-fixture.ts";

directoryContract("SQLite", async () => {
  const fixture = await openDirectoryFixture();
  const domainId = await fixture.addDomain();
  await fixture.fill(domainId);
  return { directory: fixture.directory, domainId, [Symbol.asyncDispose]: () => fixture[Symbol.asyncDispose]() };
});

if (whyNoPostgres() === undefined) {
  directoryContract("PostgreSQL", async () => {
    await using opening = new AsyncDisposableStack();
    const server = opening.use(await PostgresFixture.start());
    const fixture = opening.use(await openDirectoryFixture(server.server()));
    const domainId = await fixture.addDomain();
    await fixture.fill(domainId);
    const open = opening.move();
    return { directory: fixture.directory, domainId, [Symbol.asyncDispose]: () => open.disposeAsync() };
  });
} else {
  test.skip(`PostgreSQL: ${whyNoPostgres()}`, () => expect.unreachable());
}

if (whyNoSlapd() === undefined) {
  directoryContract("OpenLDAP", async () => {
    await using opening = new AsyncDisposableStack();
    const server = opening.use(await SlapdFixture.start(ldapContractEntries()));
    const fixture = opening.use(await openDirectoryFixture());
    const domainId = await fixture.addDomain(ldapContractOptions(server.url));
    const open = opening.move();
    return { directory: fixture.directory, domainId, [Symbol.asyncDispose]: () => open.disposeAsync() };
  });
} else {
  test.skip(`OpenLDAP: ${whyNoSlapd()}`, () => expect.unreachable());
}
