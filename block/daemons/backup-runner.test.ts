import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { inParallel } from "../backup/in-parallel.ts";
import { type Answer, at, listAt, PROJECT, TestBlock } from "../test-block.ts";

const started: TestBlock[] = [];
const TABLE = { backup_grace_seconds: 0 };
const LAZY = { ...TABLE, lazy_restore: true };

const start = async (table: object = TABLE): Promise<TestBlock> => {
  const block = new TestBlock();
  started.push(block);
  await block.start({ table });
  return block;
};
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

const MIB = 1024 * 1024;
const NEVER = Number.POSITIVE_INFINITY;
const LIVES_AT_ONCE = 8;

/**
 * The process dies at the nth moment, before or after a call to the host or to the object store. Nothing more reaches them from it; the test ends it.
 */
const mortal = (block: TestBlock, nth: number) => {
  let moments = 0;
  const isOver = Promise.withResolvers<void>();
  const died = Promise.withResolvers<void>();
  const live = async (): Promise<void> => {
    moments += 1;
    if (moments < nth) return;
    died.resolve();
    await isOver.promise;
    throw new RingsteadError("rpc-unreachable", "the process is dead");
  };
  for (const fake of [block.host, block.data, block.objects]) fake.intercept = live;
  return {
    died: died.promise,
    moments: () => moments,
    stop: () => {
      for (const fake of [block.host, block.data, block.objects]) fake.intercept = () => {};
    },
    bury: async () => {
      const ended = block.stop();
      isOver.resolve();
      await ended;
      for (const fake of [block.host, block.data, block.objects]) fake.intercept = () => {};
    },
  };
};

const written = async (block: TestBlock): Promise<{ readonly id: string; readonly first: Buffer }> => {
  const id = await block.createVolume();
  const first = randomBytes(MIB);
  block.data.put(id, 3 * MIB, first);
  return { id, first };
};

type Operation = {
  readonly name: string;
  /** The table `[block]`. */
  readonly table?: object;
  /** What the operation is about: a volume, and a backup where it needs one. */
  prepare(this: void, block: TestBlock): Promise<{ readonly volumeId: string; readonly backupId: string }>;
  begin(this: void, block: TestBlock, about: { readonly volumeId: string; readonly backupId: string }): Promise<Answer>;
  /** Resolves with the backup that is there then, once it is done. */
  settle(
    this: void,
    block: TestBlock,
    about: { readonly volumeId: string; readonly backupId: string },
  ): Promise<string>;
  /** Whether everything is as it should be. */
  verify(this: void, block: TestBlock, volumeId: string, backupId: string): Promise<void>;
};

const untilOne = async (block: TestBlock, count: number): Promise<string> => {
  const list = await block.call("GET", "/backups");
  const backups = list.body["backups"] as { id: string }[];
  expect(backups).toHaveLength(count);
  const id = backups[0]?.id ?? "";
  await block.untilShown(`/backups/${id}`, "backup", "available");
  return id;
};

/** The volume that a backup gives. */
const restoredOf = async (block: TestBlock, backupId: string): Promise<Readonly<Record<number, string>>> => {
  const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: {} } });
  const volumeId = String(at(answer, "restore.volume_id"));
  await block.until(volumeId, "available");
  return block.data.content(volumeId);
};

const RESTORATION: Operation = {
  name: "a restoration into a volume that has something else",
  prepare: async (block) => {
    const { id } = await written(block);
    const backupId = await block.createBackup(id);
    block.data.put(id, 0, randomBytes(4 * MIB));
    return { volumeId: id, backupId };
  },
  begin: (block, { volumeId, backupId }) =>
    block.call("POST", `/backups/${backupId}/restore`, { body: { restore: { volume_id: volumeId } } }),
  settle: async (block, { volumeId, backupId }) => {
    await block.until(volumeId, "available");
    await block.untilShown(`/backups/${backupId}`, "backup", "available");
    return backupId;
  },
  verify: async (block, volumeId, id) => {
    expect(block.host.volumes.get(volumeId)?.exports.size).toBe(0);
    expect(await restoredOf(block, id)).toEqual(block.data.content(volumeId));
  },
};

const OPERATIONS: readonly Operation[] = [
  {
    name: "a backup",
    prepare: async (block) => ({ volumeId: (await written(block)).id, backupId: "" }),
    begin: (block, { volumeId }) => block.call("POST", "/backups", { body: { backup: { volume_id: volumeId } } }),
    settle: async (block, { volumeId }) => {
      const id = await untilOne(block, 1);
      await block.until(volumeId, "available");
      return id;
    },
    verify: async (block, volumeId, id) => {
      expect([...(block.host.volumes.get(volumeId)?.snapshots ?? [])]).toEqual([id]);
      expect(await restoredOf(block, id)).toEqual(block.data.content(volumeId));
    },
  },
  {
    name: "an increment",
    prepare: async (block) => {
      const { id } = await written(block);
      const backupId = await block.createBackup(id);
      block.data.put(id, 70 * MIB, randomBytes(MIB));
      block.data.put(id, 3 * MIB, Buffer.alloc(MIB / 2));
      return { volumeId: id, backupId };
    },
    begin: (block, { volumeId }) =>
      block.call("POST", "/backups", { body: { backup: { volume_id: volumeId, incremental: true } } }),
    settle: async (block, { volumeId }) => {
      const id = await untilOne(block, 2);
      await block.until(volumeId, "available");
      return id;
    },
    verify: async (block, volumeId, id) => {
      expect([...(block.host.volumes.get(volumeId)?.snapshots ?? [])]).toEqual([id]);
      expect(await restoredOf(block, id)).toEqual(block.data.content(volumeId));
    },
  },
  RESTORATION,
  {
    ...RESTORATION,
    name: "a restoration into a volume that is used before it is filled",
    table: LAZY,
    verify: async (block, volumeId, id) => {
      expect(block.host.volumes.get(volumeId)?.restorationId).toBeDefined();
      expect(block.data.filling.size).toBe(0);
      expect(await restoredOf(block, id)).toEqual(block.data.content(volumeId));
    },
  },
  {
    name: "a deletion",
    prepare: async (block) => {
      const { id } = await written(block);
      return { volumeId: id, backupId: await block.createBackup(id) };
    },
    begin: (block, { backupId }) => block.call("DELETE", `/backups/${backupId}`),
    settle: async (block, { backupId }) => {
      await block.untilShown(`/backups/${backupId}`, "backup", "gone");
      return backupId;
    },
    verify: async (block, volumeId) => {
      expect(block.host.volumes.get(volumeId)?.snapshots.size).toBe(0);
      expect([...block.objects.objects.keys()].filter((path) => path.includes("/backups/"))).toEqual([]);
    },
  },
];

describe.each(OPERATIONS)("$name", ({ table = TABLE, prepare, begin, settle, verify }) => {
  it("goes on where it was when the process is killed before or after any call", { timeout: 300_000 }, async () => {
    const whole = await start(table);
    const about = await prepare(whole);
    const counting = mortal(whole, NEVER);
    await begin(whole, about);
    await verify(whole, about.volumeId, await settle(whole, about).finally(counting.stop));
    const moments = counting.moments();
    expect(moments).toBeGreaterThan(3);
    // Each has a process of its own, and mostly waits.
    await inParallel(
      Array.from({ length: moments }, (_, index) => index + 1),
      LIVES_AT_ONCE,
      async (nth) => {
        const block = await start(table);
        const one = await prepare(block);
        const life = mortal(block, nth);
        // Some ask the host before they answer, and die with it.
        const begun = begin(block, one).catch(() => undefined);
        const done = begun.then(() => settle(block, one)).catch(() => undefined);
        // A call more or less is made now and then, by a look that comes early: it may be over before its nth moment.
        await Promise.race([life.died, done]);
        await life.bury();
        const answer = await begun;
        await block.start({ table });
        if (answer?.status !== 202) await begin(block, one);
        await verify(block, one.volumeId, await settle(block, one));
        started.splice(started.indexOf(block), 1);
        await block[Symbol.asyncDispose]();
      },
    );
  });
});

it("a volume that is still filled is available, and its backup is not deleted before it is not needed", async () => {
  const block = await start(LAZY);
  const { id } = await written(block);
  const backupId = await block.createBackup(id);
  block.data.isFilling = false;
  const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: {} } });
  const volumeId = String(at(answer, "restore.volume_id"));
  await block.until(volumeId, "available");
  expect(block.data.content(volumeId)).toEqual(block.data.content(id));
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.status")).toBe("restoring");
  expect((await block.call("DELETE", `/backups/${backupId}`)).status).toBe(400);
  await block.start({ table: LAZY });
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.status")).toBe("restoring");
  block.data.isFilling = true;
  await block.untilShown(`/backups/${backupId}`, "backup", "available");
  expect(await block.statusOf(volumeId)).toBe("available");
});

it("what a volume is filled from is damaged: the volume and its project are told", async () => {
  const block = await start(LAZY);
  const { id } = await written(block);
  const backupId = await block.createBackup(id);
  block.data.isFilling = false;
  const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: {} } });
  const volumeId = String(at(answer, "restore.volume_id"));
  await block.until(volumeId, "available");
  block.data.damages.set(backupId, "chunk 1234 is missing in the object store");
  await block.until(volumeId, "error_restoring");
  await block.untilShown(`/backups/${backupId}`, "backup", "available");
  const detail = await block.call("GET", `/backups/${backupId}`);
  expect(at(detail, "backup.fail_reason")).toBe("chunk 1234 is missing in the object store");
  expect(listAt(await block.call("GET", "/messages"), "messages")).toMatchObject([
    { resource_type: "VOLUME_BACKUP", resource_uuid: backupId },
  ]);
});

it("damage in what a volume was filled from before does not fail what was restored into it since", async () => {
  const block = await start(LAZY);
  const { id } = await written(block);
  const [older, newer] = [await block.createBackup(id), await block.createBackup(id)];
  const volumeId = await block.createVolume();
  block.data.isFilling = false;
  for (const backupId of [older, newer]) {
    const body = { restore: { volume_id: volumeId } };
    expect((await block.call("POST", `/backups/${backupId}/restore`, { body })).status).toBe(202);
    await block.until(volumeId, "available");
  }
  block.data.damages.set(older, "chunk 1234 is missing in the object store");
  await block.untilShown(`/backups/${older}`, "backup", "available");
  const detail = await block.call("GET", `/backups/${older}`);
  expect(at(detail, "backup.fail_reason")).toBe("chunk 1234 is missing in the object store");
  expect(await block.statusOf(volumeId)).toBe("available");
  // Its own does.
  block.data.damages.set(newer, "chunk 5678 is missing in the object store");
  await block.until(volumeId, "error_restoring");
});

it.each(["pool-full", "backups-unavailable", "snapshot-filling"])(
  "where a host cannot fill a volume by itself (%s), it is written before it is available",
  async (code) => {
    const block = await start(LAZY);
    const { id } = await written(block);
    const backupId = await block.createBackup(id);
    block.data.intercept = (method, moment) => {
      if (method === "restore" && moment === "before") throw new RingsteadError(code, "it cannot be");
    };
    const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: {} } });
    const volumeId = String(at(answer, "restore.volume_id"));
    await block.until(volumeId, "available");
    expect(block.data.content(volumeId)).toEqual(block.data.content(id));
    expect(block.host.volumes.get(volumeId)?.restorationId).toBeUndefined();
  },
);

it("while the object store is away a backup waits, and goes on when it is back", async () => {
  const block = await start();
  const { id } = await written(block);
  let isAway = true;
  let refusals = 0;
  const seen = Promise.withResolvers<void>();
  block.objects.intercept = () => {
    if (!isAway) return;
    refusals += 1;
    if (refusals === 3) seen.resolve();
    throw new RingsteadError("object-store-away", "the object store does not answer: ECONNREFUSED");
  };
  const answer = await block.call("POST", "/backups", { body: { backup: { volume_id: id } } });
  await seen.promise;
  const path = `/backups/${String(at(answer, "backup.id"))}`;
  expect(at(await block.call("GET", path), "backup.status")).toBe("creating");
  expect(await block.statusOf(id)).toBe("backing-up");
  isAway = false;
  await block.untilShown(path, "backup", "available");
  expect(await block.statusOf(id)).toBe("available");
});

it("where the object store stays away the backup fails in words, and leaves nothing at the host", async () => {
  const block = new TestBlock();
  started.push(block);
  await block.start({ table: TABLE, giveUpMs: 300 });
  const { id } = await written(block);
  block.objects.intercept = () => {
    throw new RingsteadError("object-store-away", "the object store does not answer: ECONNREFUSED");
  };
  const answer = await block.call("POST", "/backups", { body: { backup: { volume_id: id } } });
  const path = `/backups/${String(at(answer, "backup.id"))}`;
  await block.untilShown(path, "backup", "error");
  expect(at(await block.call("GET", path), "backup.fail_reason")).toBe(
    "the object store does not answer: ECONNREFUSED",
  );
  expect(await block.statusOf(id)).toBe("available");
  expect(block.host.volumes.get(id)?.snapshots.size).toBe(0);
  const messages = await block.call("GET", "/messages");
  expect(at(messages, "messages.0.user_message")).toBe("create backup:Backup driver failed to create backup.");
  block.objects.intercept = () => {};
  expect((await block.call("DELETE", path)).status).toBe(202);
  await block.untilShown(path, "backup", "gone");
});

it("a pool that has no room until earlier layers are merged is asked again, and the backup is made", async () => {
  const block = await start();
  const { id } = await written(block);
  let refusals = 0;
  block.host.intercept = (method, moment) => {
    if (method !== "createSnapshot" || moment !== "before" || refusals === 2) return;
    refusals += 1;
    throw new RingsteadError("pool-full", "the pool has no room");
  };
  await block.createBackup(id);
  expect(refusals).toBe(2);
  expect(await block.statusOf(id)).toBe("available");
});

it("a chunk that is missing or damaged is named, and a volume that has something is not touched", async () => {
  const block = await start();
  const { id } = await written(block);
  const backupId = await block.createBackup(id);
  const before = randomBytes(2 * MIB);
  block.data.put(id, 0, before);
  const [chunk = "", kept] = [...block.objects.objects].find(([path]) => path.includes("/chunks/")) ?? [];
  const name = chunk.slice(chunk.lastIndexOf("/") + 1);
  block.objects.objects.delete(chunk);
  await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: { volume_id: id } } });
  await block.until(id, "error_restoring");
  const reason = async () => at(await block.call("GET", `/backups/${backupId}`), "backup.fail_reason");
  expect(await reason()).toBe(`chunk ${name} of backup ${backupId} is missing in the object store`);
  expect(block.data.bytes(id, 0, 2 * MIB).equals(before)).toBe(true);
  expect(at(await block.call("GET", "/messages"), "messages.0.user_message")).toBe(
    "restore backup:Backup driver failed to restore backup.",
  );
  const bytes = Buffer.from(kept?.bytes ?? Buffer.alloc(0));
  bytes.writeUInt8(bytes.readUInt8(500) ^ 1, 500);
  block.objects.objects.set(chunk, { bytes, modifiedAtMs: 0 });
  const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore: {} } });
  const volumeId = String(at(answer, "restore.volume_id"));
  await block.until(volumeId, "error_restoring");
  expect(await reason()).toMatch(new RegExp(`^chunk ${name} (is damaged|holds something else)`));
  expect(block.data.content(volumeId)).toEqual({});
  expect((await block.call("DELETE", `/volumes/${volumeId}`)).status).toBe(202);
  await block.until(volumeId, "gone");
});

it("what the host forgot while a volume was restored is written again", async () => {
  const block = await start();
  const { id } = await written(block);
  const backupId = await block.createBackup(id);
  let writes = 0;
  block.data.intercept = (method, moment) => {
    if (method !== "write" || moment !== "after") return;
    writes += 1;
    if (writes === 1) block.data.loseWriters();
  };
  expect(await restoredOf(block, backupId)).toEqual(block.data.content(id));
  expect(writes).toBeGreaterThan(1);
});

it("what no backup needs is swept, also what failed backups left, and nothing else", async () => {
  const block = await start();
  const { id } = await written(block);
  const first = await block.createBackup(id);
  block.data.put(id, 100 * MIB, randomBytes(MIB));
  const second = await block.createBackup(id, { incremental: true });
  const kinds = () => {
    const paths = [...block.objects.objects.keys()];
    return ["chunks", "pages", "backups"].map((kind) => paths.filter((path) => path.includes(`/${kind}/`)).length);
  };
  expect(kinds()).toEqual([2, 2, 2]);
  block.objects.objects.set(`volume-backups-${PROJECT}/chunks/${"f".repeat(64)}`, {
    bytes: Buffer.alloc(9),
    modifiedAtMs: 1,
  });
  await block.call("DELETE", `/backups/${first}`);
  await block.untilShown(`/backups/${first}`, "backup", "gone");
  // The increment has all that it needs, and the one before it is no part of that.
  const swept = async (expected: readonly number[]): Promise<void> => {
    for (let waited = 0; kinds().join() !== expected.join(); waited += 50) {
      if (waited > 20_000) throw new Error(`${kinds().join()} is stored`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  await swept([2, 2, 1]);
  expect(await restoredOf(block, second)).toEqual(block.data.content(id));
  await block.call("DELETE", `/backups/${second}`);
  await swept([0, 0, 0]);
});
