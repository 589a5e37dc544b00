import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { PartitionEpochs } from "../partition-epochs.ts";
import { LocalSource } from "../repair/local-source.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { entryDigests } from "../store/entry-digest.ts";
import { Votes } from "../votes.ts";
import type { Configuration } from "../wire.ts";
import { EpochHearing, type HearingCircle, wordsOf } from "./epoch-hearing.ts";

/** More partitions than one answer tells of. */
const POWER = 11;
const clock = { nowMs: () => 1_700_000_000_000 };
const FIRST = ["a/d1", "b/d1", "c/d1"];

const replicaOf = async (id: string, identity = "0000000000000001"): Promise<DeviceReplica> => {
  const engine = new MemoryDevice((done) => void setImmediate(done), undefined, entryDigests(Buffer.alloc(32)));
  // Every other partition is one that the others have nothing to do with.
  const of = {
    partitionPower: POWER,
    idsOf: (partition: number) => (partition % 2 === 0 ? FIRST : ["x/d1"]),
    identity,
  };
  const epochs = await PartitionEpochs.opened(engine, id, { account: of, container: of, object: of });
  return new DeviceReplica(engine, clock, [1n, 2n], await Votes.opened(engine, clock, false), epochs);
};

const movedTo = (...ids: string[]): Configuration => ({
  epoch: 6,
  old: ids.map((id) => ({ id, since: 5 })),
  next: undefined,
  floor: "0".repeat(16) as never,
});

const moveAll = async (replica: DeviceReplica, configuration: Configuration): Promise<void> => {
  const places = Array.from({ length: 2 ** POWER }, (_, partition) => ({
    space: "object" as const,
    partition,
    partitionPower: POWER,
  }));
  await Promise.all(places.map((place) => replica.configure(place, configuration)));
};

const silent = (): RepairSource => {
  const refuse = () => Promise.reject(new RingsteadError("rpc-unreachable", "nobody is there"));
  return { epochs: refuse } as unknown as RepairSource;
};

const hearing = (replica: DeviceReplica, others: Map<string, DeviceReplica>, circle: HearingCircle): EpochHearing =>
  new EpochHearing({
    replica,
    circle: () => circle,
    powers: { account: POWER, container: POWER, object: POWER },
    peerOf: (id) => {
      const other = others.get(id);
      return other === undefined ? silent() : new LocalSource(other);
    },
  });

test("an emptied device hears page by page of all partitions that were moved, and keeps what is about its own", async () => {
  const [own, knowing] = [await replicaOf("a/d1"), await replicaOf("d/d1")];
  await moveAll(knowing, movedTo("d/d1", "e/d1", "f/d1"));
  const it = hearing(own, new Map([["d/d1", knowing]]), { required: ["a/d1", "d/d1"], others: [] });
  expect(it.verdict.kind).toBe("silent");
  await it.listen();
  // Those that it names are nobody's to wait for, since no ring names them.
  expect(it.verdict).toEqual({ kind: "heard" });
  const known = [...own.epochs.moved("object")];
  expect(known).toHaveLength(2 ** POWER / 2);
  expect(known.every(([partition, { configuration }]) => partition % 2 === 0 && configuration.epoch === 6)).toBe(true);
});

test("who keeps a partition is heard of one that only another device names", async () => {
  const [own, between, last] = [await replicaOf("a/d1"), await replicaOf("d/d1"), await replicaOf("g/d1")];
  await moveAll(between, movedTo("g/d1"));
  await moveAll(last, { ...movedTo("h/d1"), epoch: 8 });
  const others = new Map([
    ["d/d1", between],
    ["g/d1", last],
  ]);
  const it = hearing(own, others, { required: ["a/d1", "d/d1"], others: [] });
  await it.listen();
  expect(own.epochs.configurationOf({ space: "object", partition: 2, partitionPower: POWER }).epoch).toBe(8);
});

test("a device of the rings that does not answer is waited for, in words, and one that was taken out of them is not", async () => {
  const [own, knowing] = [await replicaOf("a/d1"), await replicaOf("d/d1")];
  const others = new Map([["d/d1", knowing]]);
  const required = ["a/d1", "d/d1", "e/d1"];
  const it = hearing(own, others, { required, others: ["c/d1"] });
  await it.listen();
  const { verdict } = it;
  expect(verdict).toMatchObject({ kind: "silent", ids: ["e/d1"] });
  if (verdict.kind === "heard") throw new Error("nobody is missing");
  expect(wordsOf(verdict)).toMatch(/e\/d1 cannot be asked .* take them out of the rings/);
  required.pop();
  await it.listen();
  expect(it.verdict).toEqual({ kind: "heard" });
});

test("as long as a ring cannot be read nobody is taken for all that may know, in words", async () => {
  const [own, knowing] = [await replicaOf("a/d1"), await replicaOf("d/d1")];
  let circle: HearingCircle = {
    required: ["d/d1"],
    others: ["d/d1"],
    unread: "DIR/rings/object-0.ring: it is no ring",
  };
  const it = new EpochHearing({
    replica: own,
    circle: () => circle,
    powers: { account: POWER, container: POWER, object: POWER },
    peerOf: () => new LocalSource(knowing),
  });
  await it.listen();
  const { verdict } = it;
  if (verdict.kind === "heard") throw new Error("a ring is unread");
  expect(wordsOf(verdict)).toMatch(/copy the ring from another node \(DIR\/rings\/object-0.ring/);
  circle = { required: ["d/d1"], others: ["d/d1"] };
  await it.listen();
  expect(it.verdict).toEqual({ kind: "heard" });
});

test("a device that began with another ring makes both of them wait for an operator", async () => {
  const [own, other] = [await replicaOf("a/d1"), await replicaOf("d/d1", "0000000000000002")];
  const others = new Map([["d/d1", other]]);
  const it = hearing(own, others, { required: ["d/d1"], others: [] });
  await it.listen();
  const { verdict } = it;
  expect(verdict).toEqual({ kind: "other-base", id: "d/d1" });
  if (verdict.kind === "heard") throw new Error("the bases differ");
  expect(wordsOf(verdict)).toContain("copy DIR/rings/*.base");
  others.set("d/d1", await replicaOf("d/d1"));
  await it.listen();
  expect(it.verdict).toEqual({ kind: "heard" });
});
