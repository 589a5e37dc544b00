import { LISTED_LIMIT, type ObjectStore, type StoredObject } from "./object-store.ts";

/** An object store in memory, for tests; its promises are those of the real one (`object-store.contract.ts`). */
export type FakeObjectStore = ObjectStore & {
  /** By `container/name`. */
  readonly objects: Map<string, { bytes: Buffer; modifiedAtMs: number }>;
  /** Called at the beginning of each call, and with `after` when it was done; what it throws, or waits for, the caller sees. */
  intercept: (method: keyof ObjectStore, moment: "before" | "after") => Promise<void> | void;
};

export const createFakeObjectStore = (nowMs: () => number = () => Date.now()): FakeObjectStore => {
  const objects: FakeObjectStore["objects"] = new Map();
  const around = async <Result>(method: keyof ObjectStore, work: () => Result): Promise<Result> => {
    await store.intercept(method, "before");
    const result = work();
    await store.intercept(method, "after");
    return result;
  };
  const store: FakeObjectStore = {
    objects,
    intercept: () => {},
    put: (container, name, bytes) =>
      around(
        "put",
        () => void objects.set(`${container}/${name}`, { bytes: Buffer.from(bytes), modifiedAtMs: nowMs() }),
      ),
    get: (container, name) =>
      around("get", () => {
        const found = objects.get(`${container}/${name}`);
        return found && Buffer.from(found.bytes);
      }),
    has: (container, name) => around("has", () => objects.has(`${container}/${name}`)),
    remove: (container, name) => around("remove", () => void objects.delete(`${container}/${name}`)),
    list: (container, prefix, marker) =>
      around("list", () => {
        const found: StoredObject[] = [];
        for (const [path, { bytes, modifiedAtMs }] of objects) {
          const name = path.slice(container.length + 1);
          if (path.startsWith(`${container}/`) && name.startsWith(prefix) && name > marker)
            found.push({ name, sizeBytes: bytes.length, modifiedAtMs });
        }
        return found.toSorted((one, other) => (one.name < other.name ? -1 : 1)).slice(0, LISTED_LIMIT);
      }),
  };
  return store;
};
