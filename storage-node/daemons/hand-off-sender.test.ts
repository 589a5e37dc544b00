import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation, NO_INCARNATION } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { TIMESTAMP_ZERO, timestampAt } from "../../common/hybrid-clock.ts";
import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { type FirstMembers, PartitionEpochs } from "../partition-epochs.ts";
import { UNPACED } from "../repair/partition-repair.ts";
import { readHeldBody } from "../repair/repair-source.ts";
import {
  type Configuration,
  encodeContainerRecord,
  INLINE_BODY_LIMIT_BYTES,
  type Name,
  type Register,
} from "../wire.ts";
import { HandOffSender, type HandOffTarget } from "./hand-off-sender.ts";
import type { SpaceRings } from "./own-partitions.ts";

const NOW_MS = 1_700_000_000_000;
const LIFE = "1".repeat(24) as Incarnation;
const PLACE = { space: "object", partition: 3, partitionPower: 4 } as const;
const OBJECT = { space: "object", hash32: 0x3000_0001, path: "/a/c/o" } as const;
const CONTAINER: Name = { space: "container", hash32: 0x3000_0002, path: "/a/c" };
const FIRST_IDS = ["n/a", "n/b", "n/c"];
const of = { partitionPower: 4, idsOf: () => FIRST_IDS };
const FIRST: FirstMembers = { account: of, container: of, object: of };
const ring: SpaceRings["object"] = {
  partitionCount: 16,
  partitionPower: 4,
  primaries: () =>
    FIRST_IDS.map((id, index) => ({ id: index, region: 1, zone: 1, node: "n", device: id.slice(2), weight: 1 })),
};
const RINGS: SpaceRings = { account: ring, container: ring, object: ring };
const ballot = (time: number): Ballot => ballotOf(NO_INCARNATION, timestampAt(NOW_MS + time), "00000001");
const signal = new AbortController().signal;

const registerOf = (bodyLength: number): Register => ({
  version: ballot(1),
  ballot: ballot(1),
  state: "accepted",
  bodyVersion: ballot(1),
  isTombstone: false,
  bodyLength,
  metadata: new Uint8Array([1]),
});

/** A hand-off, and devices that keep partitions, some of which are away. */
class Devices {
  readonly away = new Set<string>();
  /** Which device was offered what: its id once for each message. */
  readonly asked: string[] = [];
  readonly #replicas = new Map<string, DeviceReplica>();

  static async make(ids: readonly string[]): Promise<Devices> {
    const devices = new Devices();
    for (const id of ids) {
      const device = new MemoryDevice((done) => queueMicrotask(done));
      const epochs = await PartitionEpochs.opened(device, id, FIRST);
      const replica = new DeviceReplica(device, { nowMs: () => NOW_MS }, [1n, 2n], undefined, epochs);
      devices.#replicas.set(id, replica);
    }
    return devices;
  }

  of(id: string): DeviceReplica {
    const replica = this.#replicas.get(id);
    if (replica === undefined) throw new RingsteadError("no-such-device", "this node does not serve that device");
    return replica;
  }

  targetOf(id: string): HandOffTarget {
    const reach = (): DeviceReplica => {
      this.asked.push(id);
      if (this.away.has(id)) throw new RingsteadError("rpc-unreachable", "nobody is there");
      return this.of(id);
    };
    let staged: Buffer | undefined;
    return {
      take: async (name, register, body, _timeoutMs, epoch) => {
        const replica = reach();
        const bytes = typeof body === "object" && "bytes" in body ? body.bytes : staged;
        if (typeof body === "object" && bytes === undefined)
          throw new RingsteadError("staging-unknown", "no such staged body");
        const none = body === "none" ? ({ kind: "none" } as const) : undefined;
        const given = typeof body === "object" && bytes !== undefined ? ({ kind: "bytes", bytes } as const) : none;
        return (await replica.take(name, register, given, epoch)).answer;
      },
      row: async (owner, incarnation, row, _timeoutMs, epoch) =>
        (await reach().row(owner, incarnation, row, epoch, false, true)).kind,
      stage: async (blocks) => {
        const parts: Uint8Array[] = [];
        for await (const block of blocks) parts.push(block);
        staged = Buffer.concat(parts);
        return parts.length;
      },
    };
  }

  senderOf(id: string): HandOffSender {
    const targetOf = (target: string): HandOffTarget => this.targetOf(target);
    return new HandOffSender({ device: id, replica: this.of(id), rings: RINGS, targetOf, pace: UNPACED });
  }
}

test("a hand-off copy goes only after all primaries have acknowledged, and who has it is not asked again", async () => {
  const devices = await Devices.make([...FIRST_IDS, "n/x"]);
  const { handOffs } = devices.of("n/x");
  await handOffs.keep(OBJECT, registerOf(4), { kind: "bytes", bytes: Buffer.from("body") });
  const sender = devices.senderOf("n/x");
  devices.away.add("n/c");
  await sender.round(signal);
  await sender.round(signal);
  expect([handOffs.left, sender.figures.handOffsSent]).toEqual([1, 0]);
  // Offered, then with its body; the one that is away once in each round.
  expect(devices.asked.toSorted((one, other) => (one < other ? -1 : 1))).toEqual([
    "n/a",
    "n/a",
    "n/b",
    "n/b",
    "n/c",
    "n/c",
  ]);
  devices.away.clear();
  await sender.round(signal);
  expect([handOffs.left, sender.figures.handOffsSent]).toEqual([0, 1]);
  for (const id of FIRST_IDS) {
    const bytes = await readHeldBody(devices.of(id), OBJECT, ballot(1), 0, 4);
    expect(Buffer.from(bytes).toString()).toBe("body");
  }
});

test("without progress rounds get rarer, up to a limit, and what goes home makes them frequent again", async () => {
  const devices = await Devices.make([...FIRST_IDS, "n/x"]);
  const { handOffs } = devices.of("n/x");
  await handOffs.keep(OBJECT, registerOf(4), { kind: "bytes", bytes: Buffer.from("body") });
  const sender = devices.senderOf("n/x");
  for (const id of FIRST_IDS) devices.away.add(id);
  const pauses: unknown[] = [];
  for (let round = 0; round < 6; round++) {
    await sender.round(signal);
    pauses.push(sender.status()["pauseMs"]);
  }
  expect(pauses).toEqual([2000, 4000, 8000, 16_000, 16_000, 16_000]);
  devices.away.delete("n/a");
  await sender.round(signal);
  expect([sender.status()["pauseMs"], handOffs.left]).toEqual([1000, 1]);
  // What came later is offered to all: who has the earlier version has not this one.
  const later = { ...registerOf(5), version: ballot(2), ballot: ballot(2), bodyVersion: ballot(2) };
  await handOffs.keep(OBJECT, later, { kind: "bytes", bytes: Buffer.from("later") });
  devices.away.clear();
  await sender.round(signal);
  expect(handOffs.left).toBe(0);
  for (const id of FIRST_IDS) expect((await devices.of(id).held(OBJECT))?.register.version).toBe(ballot(2));
});

test("a large body is staged at each member", async () => {
  const devices = await Devices.make([...FIRST_IDS, "n/x"]);
  const length = INLINE_BODY_LIMIT_BYTES + 5;
  const bytes = Buffer.alloc(length, 7);
  await devices.of("n/x").handOffs.keep(OBJECT, registerOf(length), { kind: "bytes", bytes });
  await devices.senderOf("n/x").round(signal);
  expect(devices.of("n/x").handOffs.left).toBe(0);
  expect((await readHeldBody(devices.of("n/a"), OBJECT, ballot(1), length - 5, 5)).length).toBe(5);
});

test("where the partition has other members by now all of those are asked, in their epoch", async () => {
  const devices = await Devices.make([...FIRST_IDS, "n/d", "n/x"]);
  const memberOf = (id: string) => ({ id, since: 0 });
  const moved: Configuration = {
    epoch: 2,
    old: ["n/b", "n/c", "n/d"].map(memberOf),
    next: undefined,
    floor: TIMESTAMP_ZERO,
  };
  for (const id of ["n/a", "n/b", "n/c"]) await devices.of(id).configure(PLACE, moved);
  const { handOffs } = devices.of("n/x");
  await handOffs.keep(OBJECT, registerOf(0), { kind: "none" });
  const sender = devices.senderOf("n/x");
  await sender.round(signal);
  expect(handOffs.left).toBe(1);
  devices.away.add("n/d");
  await sender.round(signal);
  expect(handOffs.left).toBe(1);
  devices.away.clear();
  // It has not heard of the epoch, in which it has caught up then.
  await sender.round(signal);
  expect(handOffs.left).toBe(1);
  await devices.of("n/d").configure(PLACE, moved);
  await devices.of("n/d").epochs.change(PLACE, { kind: "catch-up", epoch: 2 });
  await sender.round(signal);
  expect(handOffs.left).toBe(0);
  expect((await devices.of("n/d").held(OBJECT))?.register.version).toBe(ballot(1));
  expect(await devices.of("n/a").held(OBJECT)).toBeUndefined();
});

test("a row waits until every member has heard of its container", async () => {
  const devices = await Devices.make([...FIRST_IDS, "n/x"]);
  const { handOffs } = devices.of("n/x");
  const row = { name: "o", version: ballot(5), isDeleted: false, objects: 1, bytes: 4, payload: new Uint8Array([1]) };
  await handOffs.keepRow(CONTAINER, LIFE, row);
  const metadata = encodeContainerRecord({ status: "open", incarnation: LIFE, headers: {} });
  const record = { bodyVersion: ballot(1), isTombstone: false, bodyLength: 0, metadata, body: "none" } as const;
  const make = (id: string) =>
    devices.of(id).accept(CONTAINER, ballot(1), ballot(1), record, { kind: "none" }, [ballot(1)]);
  for (const id of ["n/a", "n/b"]) await make(id);
  const sender = devices.senderOf("n/x");
  await sender.round(signal);
  expect(handOffs.left).toBe(1);
  await make("n/c");
  await sender.round(signal);
  expect(handOffs.left).toBe(0);
  expect(FIRST_IDS.map((id) => devices.of(id).summary(CONTAINER, LIFE).rows)).toEqual([1, 1, 1]);
});
