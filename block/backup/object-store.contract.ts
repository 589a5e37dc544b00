import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { LISTED_LIMIT, type ObjectStore } from "./object-store.ts";

/** What every object store does that backups are kept in. `make` resolves with one, and a container that nobody else uses. */
export const objectStoreContract = (make: () => Promise<{ store: ObjectStore; container: string }>): void => {
  test("what was put is there, and is gone once it was removed", async () => {
    const { store, container } = await make();
    expect(await store.get(container, "chunks/a", 100)).toBeUndefined();
    expect(await store.has(container, "chunks/a")).toBe(false);
    const bytes = randomBytes(100_000);
    await store.put(container, "chunks/a", bytes);
    await store.put(container, "chunks/empty", Buffer.alloc(0));
    expect(await store.has(container, "chunks/a")).toBe(true);
    expect((await store.get(container, "chunks/a", 200_000))?.equals(bytes)).toBe(true);
    expect(await store.get(container, "chunks/empty", 10)).toHaveLength(0);
    await store.remove(container, "chunks/a");
    await store.remove(container, "chunks/a");
    expect(await store.has(container, "chunks/a")).toBe(false);
    expect(await store.get(container, "chunks/a", 100)).toBeUndefined();
  });

  test("lists show what begins with a prefix, in order, page by page, with when it was stored", async () => {
    const { store, container } = await make();
    expect(await store.list(container, "pages/", "")).toEqual([]);
    for (const name of ["pages/b", "chunks/x", "pages/a", "pages/c"])
      await store.put(container, name, Buffer.from(name));
    const listed = await store.list(container, "pages/", "");
    expect(listed.map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([
      ["pages/a", 7],
      ["pages/b", 7],
      ["pages/c", 7],
    ]);
    for (const { modifiedAtMs } of listed) expect(Math.abs(modifiedAtMs - Date.now())).toBeLessThan(3_600_000);
    expect((await store.list(container, "pages/", "pages/a")).map(({ name }) => name)).toEqual(["pages/b", "pages/c"]);
    expect(LISTED_LIMIT).toBeGreaterThan(3);
  });

  test("two containers have nothing in common", async () => {
    const { store, container } = await make();
    await store.put(container, "a", Buffer.from("1"));
    expect(await store.has(`${container}-other`, "a")).toBe(false);
    expect(await store.list(`${container}-other`, "", "")).toEqual([]);
    await store.remove(`${container}-other`, "a");
    expect(await store.has(container, "a")).toBe(true);
  });
};
