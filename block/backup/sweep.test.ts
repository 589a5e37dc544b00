import { randomBytes, randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { BackupStore } from "./backup-store.ts";
import { GRAIN_BYTES, PAGE_BYTES } from "./core/page.ts";
import { createFakeObjectStore } from "./fake-object-store.ts";
import { projectKeys } from "./keys.ts";
import { sweepStore } from "./sweep.ts";

const PAGES = 12;
const GARBAGE = 20;

/** Two backups of several pages each, and chunks that neither needs. */
const filled = async () => {
  const objects = createFakeObjectStore(() => 0);
  const keys = projectKeys(Buffer.alloc(32, 1), "project");
  const store = new BackupStore({ objects, projectId: "project", keys, compression: "none", isEncrypted: false });
  for (let backup = 0; backup < 2; backup++) {
    const pages: string[] = [];
    for (let page = 0; page < PAGES; page++) {
      const { name: chunk } = await store.putChunk(randomBytes(GRAIN_BYTES));
      pages.push((await store.putPage([{ first: 0, count: 1, chunk, chunkFirst: 0 }])).name);
    }
    await store.putList({ backupId: randomUUID(), sizeBytes: PAGES * PAGE_BYTES, takenAtMs: 0, pages });
  }
  for (let index = 0; index < GARBAGE; index++) await store.putChunk(randomBytes(GRAIN_BYTES));
  return { objects, store };
};

it("a sweep that loses its lease at any moment, also while it marks, removes nothing from then on", async () => {
  let held = 0;
  const count = await filled();
  await sweepStore({ store: count.store, nowMs: 1, graceMs: 0, hold: async () => void (held += 1) });
  // At least once for each page and each list: however large a store is, the lease is renewed while it is marked.
  expect(held).toBeGreaterThan(2 * PAGES + 2);
  for (let lostAt = 1; lostAt <= held; lostAt++) {
    const { objects, store } = await filled();
    let asked = 0;
    let isLost = false;
    objects.intercept = (method) => {
      if (isLost && method === "remove") throw new Error("something is removed without a lease");
    };
    const hold = async (): Promise<void> => {
      asked += 1;
      isLost = asked >= lostAt;
      if (isLost) throw new RingsteadError("sweep-lost", "the lease is over");
    };
    const swept = sweepStore({ store, nowMs: 1, graceMs: 0, hold });
    await expect(swept).rejects.toMatchObject({ code: "sweep-lost" });
  }
});
