import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, it, vi } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { createFakeVolumeHost, type FakeVolumeHost } from "../fake-volume-host.ts";
import { at, PROJECT, TestBlock } from "../test-block.ts";
import type { NewVolume, VolumeHost, WantedExport } from "../volume-host.ts";

const started: TestBlock[] = [];
const start = async (host?: FakeVolumeHost): Promise<TestBlock> => {
  const block = await TestBlock.start({}, host);
  started.push(block);
  return block;
};
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

const INSTANCE = randomUUID();
const CONNECTOR = { host: "elsewhere" };

/**
 * The process dies at its nth call of the host: before the host does it, or after, before anything of it is written. Nothing more reaches the host from
 * it; the test ends it.
 */
const dyingAt = (host: FakeVolumeHost, nth: number, moment: "before" | "after") => {
  let calls = 0;
  const isOver = Promise.withResolvers<void>();
  const died = Promise.withResolvers<void>();
  const dead = async (): Promise<never> => {
    died.resolve();
    await isOver.promise;
    throw new RingsteadError("rpc-unreachable", "the process is dead");
  };
  const mortal =
    <Arguments extends readonly unknown[], Result>(call: (...given: Arguments) => Promise<Result>) =>
    async (...given: Arguments): Promise<Result> => {
      calls += 1;
      if (calls > nth || (calls === nth && moment === "before")) return dead();
      const result = await call(...given);
      return calls === nth ? dead() : result;
    };
  const wrapped: VolumeHost = {
    pools: mortal(() => host.pools()),
    createVolume: mortal((volume: NewVolume) => host.createVolume(volume)),
    deleteVolume: mortal((volumeId: string) => host.deleteVolume(volumeId)),
    extendVolume: mortal((volumeId: string, sizeBytes: number) => host.extendVolume(volumeId, sizeBytes)),
    createSnapshot: mortal((volumeId: string, snapshotId: string) => host.createSnapshot(volumeId, snapshotId)),
    deleteSnapshot: mortal((volumeId: string, snapshotId: string) => host.deleteSnapshot(volumeId, snapshotId)),
    revertVolume: mortal((volumeId: string, snapshotId: string) => host.revertVolume(volumeId, snapshotId)),
    // No task asks for it.
    flattenVolume: (volumeId) => host.flattenVolume(volumeId),
    exportVolume: mortal((wanted: WantedExport) => host.exportVolume(wanted)),
    unexportVolume: mortal((volumeId: string, attachmentId: string) => host.unexportVolume(volumeId, attachmentId)),
    limitVolumes: (limits) => host.limitVolumes(limits),
    // Asked by a worker, whenever it likes.
    exports: () => host.exports(),
  };
  return { host: wrapped, died: died.promise, bury: () => isOver.resolve() };
};

type Operation = {
  readonly name: string;
  /** Calls of the host that it makes. */
  readonly calls: number;
  /** Prepares, and gives the volume. */
  prepare(block: TestBlock): Promise<string>;
  begin(block: TestBlock, id: string): Promise<unknown>;
  /** What the API and the host have to say in the end. */
  check(block: TestBlock, id: string): Promise<void>;
};

const makeVolume = (block: TestBlock): Promise<string> => block.createVolume();

const OPERATIONS: readonly Operation[] = [
  {
    name: "creation",
    calls: 2,
    prepare: async () => "",
    begin: (block) => block.call("POST", "/volumes", { body: { volume: { size: 1, name: "one" } } }),
    check: async (block) => {
      const list = await block.call("GET", "/volumes");
      const [volume] = list.body["volumes"] as { id: string }[];
      await block.until(volume?.id ?? "", "available");
      expect([...block.host.volumes.keys()]).toEqual([volume?.id]);
    },
  },
  {
    name: "deletion",
    calls: 1,
    prepare: makeVolume,
    begin: (block, id) => block.call("DELETE", `/volumes/${id}`),
    check: async (block, id) => {
      await block.until(id, "gone");
      expect(block.host.volumes.size).toBe(0);
    },
  },
  {
    name: "growth",
    calls: 1,
    prepare: makeVolume,
    begin: (block, id) => block.act(id, "os-extend", { new_size: 2 }),
    check: async (block, id) => {
      await block.until(id, "available");
      expect(at(await block.call("GET", `/volumes/${id}`), "volume.size")).toBe(2);
      expect(block.host.volumes.get(id)?.sizeBytes).toBe(2 * 1024 ** 3);
    },
  },
  {
    name: "connecting",
    calls: 1,
    prepare: makeVolume,
    begin: (block, id) =>
      block.call("POST", "/attachments", {
        body: { attachment: { volume_uuid: id, instance_uuid: INSTANCE, connector: CONNECTOR } },
      }),
    check: async (block, id) => {
      const attachment = await vi.waitFor(async () => {
        const list = await block.call("GET", `/attachments/detail?volume_id=${id}`);
        const [one] = list.body["attachments"] as { id: string; connection_info: object }[];
        expect(Object.keys(one?.connection_info ?? {})).not.toEqual([]);
        return one;
      });
      expect([...(block.host.volumes.get(id)?.exports.keys() ?? [])]).toEqual([attachment?.id]);
      expect(attachment?.connection_info).toMatchObject({ driver_volume_type: "nbd" });
      const done = await block.call("POST", `/attachments/${attachment?.id}/action`, { body: { "os-complete": null } });
      expect([done.status, await block.statusOf(id)]).toEqual([204, "in-use"]);
    },
  },
  {
    name: "disconnecting",
    calls: 1,
    prepare: async (block) => {
      const id = await makeVolume(block);
      const fields = { volume_uuid: id, instance_uuid: INSTANCE, connector: CONNECTOR };
      await block.call("POST", "/attachments", { body: { attachment: fields } });
      return id;
    },
    begin: async (block, id) => {
      const list = await block.call("GET", `/attachments?volume_id=${id}`);
      const [attachment] = list.body["attachments"] as { id: string }[];
      return block.call("DELETE", `/attachments/${attachment?.id}`);
    },
    check: async (block, id) => {
      await block.until(id, "available");
      expect(block.host.volumes.get(id)?.exports.size).toBe(0);
      expect((await block.call("GET", `/attachments?volume_id=${id}`)).body["attachments"]).toEqual([]);
    },
  },
  {
    name: "a snapshot",
    calls: 1,
    prepare: makeVolume,
    begin: (block, id) => block.call("POST", "/snapshots", { body: { snapshot: { volume_id: id } } }),
    check: async (block, id) => {
      const list = await block.call("GET", "/snapshots");
      const [snapshot] = list.body["snapshots"] as { id: string }[];
      await block.untilShown(`/snapshots/${snapshot?.id}`, "snapshot", "available");
      expect([...(block.host.volumes.get(id)?.snapshots ?? [])]).toEqual([snapshot?.id]);
    },
  },
  {
    name: "a snapshot's deletion",
    calls: 1,
    prepare: async (block) => {
      const id = await makeVolume(block);
      await block.createSnapshot(id);
      return id;
    },
    begin: async (block, id) => {
      const [snapshotId] = [...(block.host.volumes.get(id)?.snapshots ?? [])];
      return block.call("DELETE", `/snapshots/${snapshotId}`);
    },
    check: async (block, id) => {
      await vi.waitFor(
        async () => expect((await block.call("GET", "/snapshots")).body["snapshots"]).toEqual([]),
        5_000,
      );
      expect(block.host.volumes.get(id)?.snapshots.size).toBe(0);
    },
  },
  {
    name: "a volume's reversion",
    calls: 1,
    prepare: async (block) => {
      const id = await makeVolume(block);
      await block.createSnapshot(id);
      return id;
    },
    begin: async (block, id) => {
      const [snapshotId] = [...(block.host.volumes.get(id)?.snapshots ?? [])];
      return block.act(id, "revert", { snapshot_id: snapshotId });
    },
    check: async (block, id) => {
      await block.until(id, "available");
      expect(block.host.volumes.get(id)?.reversions).toBeGreaterThan(0);
      const list = await block.call("GET", "/snapshots");
      expect(list.body["snapshots"]).toMatchObject([{ status: "available" }]);
    },
  },
  {
    name: "creation from a snapshot",
    calls: 2,
    prepare: async (block) => block.createSnapshot(await makeVolume(block)),
    begin: (block, id) => block.call("POST", "/volumes", { body: { volume: { snapshot_id: id, name: "copy" } } }),
    check: async (block) => {
      const list = await block.call("GET", "/volumes?name=copy");
      const [volume] = list.body["volumes"] as { id: string }[];
      await block.until(volume?.id ?? "", "available");
      expect(block.host.volumes.size).toBe(2);
    },
  },
  {
    name: "deletion with snapshots",
    calls: 3,
    prepare: async (block) => {
      const id = await makeVolume(block);
      for (const _ of [1, 2]) await block.createSnapshot(id);
      return id;
    },
    begin: (block, id) => block.call("DELETE", `/volumes/${id}?cascade=True`),
    check: async (block, id) => {
      await block.until(id, "gone");
      expect(block.host.volumes.size).toBe(0);
      expect((await block.call("GET", "/snapshots")).body["snapshots"]).toEqual([]);
    },
  },
  {
    name: "a group snapshot",
    calls: 2,
    prepare: async (block) => {
      await block.asAdmin("POST", "/group_types", { group_type: { name: "plain" } });
      const made = await block.call("POST", "/groups", {
        body: { group: { group_type: "plain", volume_types: ["__DEFAULT__"] } },
      });
      const id = String(at(made, "group.id"));
      for (const _ of [1, 2]) await block.createVolume({ size: 1, group_id: id });
      return id;
    },
    begin: (block, id) => block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: id } } }),
    check: async (block) => {
      const list = await block.call("GET", "/group_snapshots");
      const [whole] = list.body["group_snapshots"] as { id: string }[];
      await block.untilShown(`/group_snapshots/${whole?.id}`, "group_snapshot", "available");
      expect([...block.host.volumes.values()].map(({ snapshots }) => snapshots.size)).toEqual([1, 1]);
    },
  },
];

const DEATHS = OPERATIONS.flatMap((operation) =>
  Array.from({ length: operation.calls }, (_, index) => index + 1).flatMap((nth) =>
    (["before", "after"] as const).map((moment) => ({ operation, nth, moment })),
  ),
);

describe("a process that dies in the middle", () => {
  it.each(DEATHS)(
    "$operation.name goes on after a death $moment call $nth of the host",
    async ({ operation, nth, moment }) => {
      const block = await start();
      const id = await operation.prepare(block);
      const mortal = dyingAt(block.host, nth, moment);
      // It is stopped, not killed: who waits there must not hold that up.
      await block.start({ host: mortal.host, waitMs: 100 });
      const asked = operation.begin(block, id).catch(() => undefined);
      await mortal.died;
      mortal.bury();
      await block.start();
      await asked;
      await operation.check(block, id);
    },
  );
});

describe("a host that does not answer", () => {
  const away = (host: FakeVolumeHost, method: keyof VolumeHost): void => {
    host.intercept = (called, moment) => {
      if (called === method && moment === "before") throw new RingsteadError("rpc-unreachable", "the host is away");
    };
  };

  it.each([
    ["pools", "error"],
    ["createVolume", "error"],
  ] as const)("a volume does not stay in creating while %s fails", async (method, status) => {
    const block = await start();
    await block.start({ giveUpMs: 300 });
    away(block.host, method);
    const id = await block.createVolume({ size: 1 }, status);
    block.host.intercept = () => {};
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
    expect(block.host.volumes.size).toBe(0);
  });

  it("a volume that was made after it was given up is removed with its row", async () => {
    const block = await start();
    await block.start({ giveUpMs: 200 });
    block.host.intercept = (called, moment) => {
      if ((called === "createVolume" && moment === "after") || called === "deleteVolume")
        throw new RingsteadError("rpc-timeout", "no answer");
    };
    const id = await block.createVolume({ size: 1 }, "error");
    expect(block.host.volumes.has(id)).toBe(true);
    block.host.intercept = () => {};
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
    expect(block.host.volumes.has(id)).toBe(false);
  });

  it("a volume does not stay in deleting or extending, and what is tried again later succeeds", async () => {
    const block = await start();
    const id = await block.createVolume();
    await block.start({ giveUpMs: 300 });
    away(block.host, "deleteVolume");
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "error_deleting");
    away(block.host, "extendVolume");
    const other = await block.createVolume();
    await block.act(other, "os-extend", { new_size: 2 });
    await block.until(other, "error_extending");
    block.host.intercept = () => {};
    for (const one of [id, other]) {
      expect((await block.call("DELETE", `/volumes/${one}`)).status).toBe(202);
      await block.until(one, "gone");
    }
    expect(block.host.volumes.size).toBe(0);
  });

  it("a snapshot stays neither in creating nor in deleting, a volume not in reverting, and their project is told", async () => {
    const block = await start();
    const id = await block.createVolume();
    const kept = await block.createSnapshot(id);
    await block.start({ giveUpMs: 200 });
    away(block.host, "createSnapshot");
    const failed = await block.createSnapshot(id, {}, "error");
    away(block.host, "deleteSnapshot");
    await block.call("DELETE", `/snapshots/${kept}`);
    await block.untilShown(`/snapshots/${kept}`, "snapshot", "error_deleting");
    const messages = await block.call("GET", "/messages?sort=created_at:asc");
    expect(messages.body["messages"]).toMatchObject([
      {
        resource_uuid: failed,
        resource_type: "VOLUME_SNAPSHOT",
        user_message: "create snapshot:Snapshot failed to create.",
      },
      { resource_uuid: kept, event_id: "VOLUME_VOLUME_SNAPSHOT_010_016", message_level: "ERROR", request_id: "" },
    ]);
    block.host.intercept = () => {};
    for (const one of [failed, kept]) {
      expect((await block.call("DELETE", `/snapshots/${one}`)).status).toBe(202);
      await block.untilShown(`/snapshots/${one}`, "snapshot", "gone");
    }
    const again = await block.createSnapshot(id);
    away(block.host, "revertVolume");
    expect((await block.act(id, "revert", { snapshot_id: again })).status).toBe(202);
    await block.until(id, "error");
    expect(at(await block.call("GET", `/snapshots/${again}`), "snapshot.status")).toBe("available");
    away(block.host, "deleteSnapshot");
    expect((await block.call("DELETE", `/volumes/${id}?cascade=1`)).status).toBe(202);
    await block.until(id, "error_deleting");
    expect(at(await block.call("GET", `/snapshots/${again}`), "snapshot.status")).toBe("error_deleting");
    block.host.intercept = () => {};
    expect((await block.call("DELETE", `/volumes/${id}?cascade=1`)).status).toBe(202);
    await block.until(id, "gone");
    expect(block.host.volumes.size).toBe(0);
  });

  it("a short absence is not noticed", async () => {
    const block = await start();
    let failures = 3;
    block.host.intercept = (_method, moment) => {
      if (moment === "before" && failures > 0) {
        failures -= 1;
        throw new RingsteadError("rpc-unreachable", "the host is away");
      }
    };
    await block.createVolume();
    expect(failures).toBe(0);
  });
});

it("volumes are worked on side by side, the tasks of one volume in order", async () => {
  const block = await start();
  const slow = Promise.withResolvers<void>();
  const id = await block.createVolume();
  block.host.intercept = (method, moment) =>
    method === "extendVolume" && moment === "before" ? slow.promise : undefined;
  await block.act(id, "os-extend", { new_size: 2 });
  const other = await block.createVolume();
  await block.act(id, "os-force_delete", null, `admin:${PROJECT}`);
  expect(await block.statusOf(id)).toBe("deleting");
  expect(block.host.volumes.has(id)).toBe(true);
  slow.resolve();
  await block.until(id, "gone");
  expect([...block.host.volumes.keys()]).toEqual([other]);
});

it("a volume of 500 GiB is made where the host has room, whatever else is being made", async () => {
  const block = await start(createFakeVolumeHost({ small: 10, large: 600 }));
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { gigabytes: -1 } });
  const [large, small] = await Promise.all([block.createVolume({ size: 500 }), block.createVolume({ size: 5 })]);
  expect(block.host.volumes.get(large)?.pool).toBe("large");
  expect(block.host.volumes.has(small)).toBe(true);
});
