import { expect, test } from "vitest";
import { openDirectoryFixture } from "../store/directory-fixture.ts";
import { createHousekeeper } from "./housekeeper.ts";

test("a membership whose time is over goes, is told of, and has its user's tokens looked at again; others stay", async () => {
  await using fixture = await openDirectoryFixture();
  const { changes } = fixture;
  const domainId = await fixture.addDomain();
  await fixture.fill(domainId);
  const members = () =>
    changes.record((transaction) =>
      transaction.selectFrom("group_members").selectAll().orderBy("user_id").orderBy("group_id").execute(),
    );
  const rows = await members();
  const [over] = rows;
  if (over === undefined) throw new Error("nobody is in a group");
  await changes.write((transaction) =>
    transaction
      .updateTable("group_members")
      .set({ expires_at_ms: 1_000 })
      .where("group_id", "=", over.group_id)
      .where("user_id", "=", over.user_id)
      .execute(),
  );
  const told: object[] = [];
  changes.onCommit(({ notifications, revocations }) => void told.push(...notifications, ...revocations));
  let retired = 0;
  let nowMs = 1_000;
  const keeper = createHousekeeper({
    changes,
    revocations: { prune: () => {} } as never,
    signingKeys: { retire: () => (retired += 1) },
    samlKeys: { retire: () => (retired += 1) },
    clock: { nowMs: () => nowMs },
    tokensLiveMs: 1_000,
  });
  const { signal } = new AbortController();
  await keeper.work(signal);
  expect([(await members()).length, told]).toEqual([rows.length, []]);
  nowMs += 1;
  await keeper.work(signal);
  await keeper.work(signal);
  expect(told).toEqual([
    { action: "update", resource: "group", id: over.group_id, details: { removed: over.user_id } },
    expect.objectContaining({ kind: "recheck", userId: over.user_id }),
  ]);
  expect(await members()).toEqual(rows.slice(1));
  expect([keeper.status(), retired]).toEqual([{ removed: 1 }, 6]);
});
