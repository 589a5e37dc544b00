import { randomBytes, randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { silentLog } from "../../common/log.ts";
import { BackupStore } from "../backup/backup-store.ts";
import { GRAIN_BYTES, PAGE_BYTES } from "../backup/core/page.ts";
import { createFakeObjectStore } from "../backup/fake-object-store.ts";
import { projectKeys } from "../backup/keys.ts";
import { REQUEST_LIMIT_MS } from "../backup/swift-object-store.ts";
import { beginSweep, endSweep, markGarbage, renewSweep } from "../store/backup-stores.ts";
import { TestClock, testDatabase } from "../test-database.ts";
import { createBackupSweeper } from "./backup-sweeper.ts";

const PROJECT = "project";
const LEASE_MS = 60_000;

it("whose lease is over ends no other's sweep", async () => {
  const database = await testDatabase();
  await markGarbage(database, PROJECT, 0);
  const first = await beginSweep(database, 1, 1000, LEASE_MS);
  const later = 1000 + LEASE_MS;
  const second = await beginSweep(database, 1, later, LEASE_MS);
  if (first === undefined || second === undefined) throw new Error("no sweep begins");
  const ended = { garbageSinceMs: null, nowMs: later + 1, failure: "lost" };
  expect(await endSweep(database, first, ended)).toBe(false);
  const shown = await database.selectFrom("backup_stores").selectAll().executeTakeFirstOrThrow();
  expect(shown).toMatchObject({ garbage_since_ms: 0, sweep_until_ms: later + LEASE_MS, failure: null });
  expect(await beginSweep(database, 1, later + 2, LEASE_MS)).toBeUndefined();
  expect(await renewSweep(database, PROJECT, second.untilMs, later + 2 * LEASE_MS)).toBe(true);
  second.untilMs = later + 2 * LEASE_MS;
  expect(await endSweep(database, second, { ...ended, failure: null })).toBe(true);
  expect(await beginSweep(database, later + 3, later + 3, LEASE_MS)).toBeUndefined();
});

it("a store that takes far longer to mark than a lease lasts is swept all the same, and its lease is never over meanwhile", async () => {
  const database = await testDatabase();
  const clock = new TestClock();
  const objects = createFakeObjectStore(() => 0);
  const keys = projectKeys(Buffer.alloc(32, 1), PROJECT);
  const store = new BackupStore({ objects, projectId: PROJECT, keys, compression: "none", isEncrypted: false });
  const pages: string[] = [];
  for (let page = 0; page < 40; page++) {
    const { name: chunk } = await store.putChunk(randomBytes(GRAIN_BYTES));
    pages.push((await store.putPage([{ first: 0, count: 1, chunk, chunkFirst: 0 }])).name);
  }
  const backupId = randomUUID();
  await store.putList({ backupId, sizeBytes: pages.length * PAGE_BYTES, takenAtMs: 0, pages });
  await store.putChunk(randomBytes(GRAIN_BYTES));
  await markGarbage(database, PROJECT, 0);
  objects.intercept = async (_method, moment) => {
    if (moment === "before") return;
    clock.now += REQUEST_LIMIT_MS;
    const { sweep_until_ms: until } = await database.selectFrom("backup_stores").selectAll().executeTakeFirstOrThrow();
    expect(Number(until)).toBeGreaterThan(clock.now);
  };
  const sweeper = createBackupSweeper({ database, storeOf: () => store, graceMs: 0, clock, log: silentLog });
  expect(await sweeper.work(new AbortController().signal)).toBe("busy");
  expect(sweeper.status()).toMatchObject({ removed: 1, lastFailure: "" });
  objects.intercept = () => {};
  expect((await store.getList(backupId)).pages).toEqual(pages);
  expect(await sweeper.work(new AbortController().signal)).toBe("idle");
});
