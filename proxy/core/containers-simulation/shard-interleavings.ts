import { ballotOf } from "../../../common/ballot.ts";
import { timestampAt } from "../../../common/hybrid-clock.ts";
import { mergeOf, planChange, settleShard, splitAt } from "../shard-change.ts";
import { ROOT } from "../shard-ranges.ts";
import { placeRow } from "../shard-row.ts";
import type { ContainersDirector } from "./director.ts";
import type { Operation } from "./history.ts";
import type { Mutation } from "./planted-mistakes.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import type { Message } from "./world.ts";

/** An order of events around a split or a merge that chance would take long to hit. */
type ShardInterleaving = {
  readonly title: string;
  readonly mistake: Mutation;
  /** Gives the answers of the operations that matter. */
  readonly play: (it: ContainersDirector) => Promise<readonly Operation["status"][]>;
  readonly answers: readonly Operation["status"][];
};

type Wanted = Partial<Pick<Message, "kind" | "space" | "to" | "way">>;

const messageOf =
  ({ process }: SimulatedProxy, { kind, space, to, way }: Wanted) =>
  (message: Message): boolean =>
    message.from === process &&
    (to === undefined || message.to === to) &&
    (kind === undefined || message.kind === kind) &&
    (space === undefined || message.space === space) &&
    (way === undefined || message.way === way);

/**
 * [S3]. A row reaches replica 0 before that is told to leave, and replica 2, which never hears of it, after its rows were copied: W of them, and neither copy has it. A copy
 * that asks replica 2 to be leaving first waits for it.
 */
const rowBehindTheCopy: ShardInterleaving = {
  title:
    "a row that reaches its quorum behind the copy of one who has not heard that rows are leaving is not lost [S3]",
  mistake: "a shard is copied where nobody has heard that it is leaving [S3]",
  play: async (it) => {
    const [writer, sharder, other] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const rowsGoOn = it.hold(
      (message) => messageOf(writer, { kind: "row", way: "request" })(message) && message.to !== 0,
    );
    const put = it.begin(writer, "put", "o1");
    await it.sent(messageOf(writer, { kind: "row", to: 0, way: "answer" }));
    const hear = it.lose(
      (message) => message.from === sharder.process && message.to === 2 && message.kind === "accept",
    );
    const listed = it.lose(messageOf(sharder, { kind: "list", to: 0 }));
    const planned = await it.run(sharder, (place, incarnation) => planChange(place, incarnation, splitAt(ROOT, "o1")));
    if (typeof planned === "string") throw new Error("the change is not planned");
    const change = it.beginChange(sharder, planned.record.incarnation);
    // Its first copies are on their way, or it found out that replica 2 is behind, and tells it.
    await it.sent(
      (message) =>
        message.from === sharder.process &&
        message.space === "container" &&
        ((message.kind === "row" && message.way === "answer") || (message.kind === "prepare" && message.to === 1)),
    );
    await it.pass(20);
    rowsGoOn();
    const done = await it.end(put);
    hear();
    listed();
    await it.endChange(change);
    return [done, await it.do(other, "list")];
  },
  answers: [200, 200],
};

/**
 * [S4]. The sharder ends the first of two before it has copied the other, and stops there. Who lists the container meets the first gone, and ends the other, whose rows nobody
 * has copied.
 */
const helperBeforeTheCopy: ShardInterleaving = {
  title: "whoever finds the first of two shards gone finds all rows of both in the one that follows [S4]",
  mistake: "one of two shards is gone before the other was copied [S4]",
  play: async (it) => {
    const [sharder, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const puts = [await it.do(other, "put", "o1"), await it.do(other, "put", "o2")];
    const split = await it.run(sharder, (place, incarnation) => planChange(place, incarnation, splitAt(ROOT, "o1")));
    if (typeof split === "string") throw new Error("the split is not planned");
    const { incarnation } = split.record;
    await it.endChange(it.beginChange(sharder, incarnation, true));
    const first = split.record.shards?.change?.to[0]?.id ?? "";
    const merge = await it.run(sharder, (place) => planChange(place, incarnation, mergeOf(first)));
    if (typeof merge === "string") throw new Error("the merge is not planned");
    // As soon as one of them is gone no message of the sharder arrives any more.
    const change = it.beginChange(sharder, incarnation);
    await it.goneSomewhere(sharder, incarnation, first);
    const isolate = it.lose(messageOf(sharder, {}));
    const listed = await it.do(other, "list");
    isolate();
    await it.endChange(change);
    return [...puts, listed, await it.do(other, "list")];
  },
  answers: [200, 200, 200, 200],
};

/** [B3]. A deletion has seen all shards empty; a row reaches the last of them before *closing* is written, whose writer dies then. */
const rowBeforeClosing: ShardInterleaving = {
  title: "a row that reaches the last shard before the closing keeps the container [B3]",
  mistake: "a deletion passes over the last shard [B3]",
  play: async (it) => {
    const [sharder, deleter, writer] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(writer, "create");
    const split = await it.run(sharder, (place, incarnation) => planChange(place, incarnation, splitAt(ROOT, "o1")));
    if (typeof split === "string") throw new Error("the split is not planned");
    await it.endChange(it.beginChange(sharder, split.record.incarnation));
    const closing = messageOf(deleter, { kind: "accept", space: "container", way: "request" });
    const goOn = it.hold(closing);
    void it.begin(deleter, "drop");
    await it.sent(closing);
    const put = await it.do(writer, "put", "o2");
    goOn();
    // It has arrived, and no answer has.
    await it.pass(0.75);
    deleter.isDead = true;
    return [put, await it.do(writer, "look"), await it.do(writer, "list")];
  },
  answers: [200, 200, 200],
};

export const SHARD_INTERLEAVINGS: readonly ShardInterleaving[] = [
  rowBehindTheCopy,
  helperBeforeTheCopy,
  rowBeforeClosing,
];

/** Settlers look at every shard of a change that goes on, all the while: how many of their messages would refuse a living sharder what it is about to write. */
export const settlersBesideASharder = async (it: ContainersDirector): Promise<number> => {
  const [sharder, other] = [it.newProxy(), it.newProxy()];
  const settlers = [it.newProxy(), it.newProxy()];
  await it.do(other, "create");
  for (const name of ["o1", "o2"]) await it.do(other, "put", name);
  const split = await it.run(sharder, (place, incarnation) => planChange(place, incarnation, splitAt(ROOT, "o1")));
  if (typeof split === "string") throw new Error("the split is not planned");
  const { incarnation, shards } = split.record;
  const ids = [ROOT, ...(shards?.change?.to ?? []).map(({ id }) => id)];
  const prepares = new Map(settlers.map(({ process }) => [process, 0]));
  const stopCounting = it.lose(({ from, kind, way }) => {
    const counted = prepares.get(from);
    if (counted !== undefined && kind === "prepare" && way === "request") prepares.set(from, counted + 1);
    return false;
  });
  let isOver = false;
  let [looks, refusals] = [0, 0];
  const settle = async (settler: SimulatedProxy): Promise<void> => {
    for (let at = 0; !isOver; at = (at + 1) % ids.length) {
      prepares.set(settler.process, 0);
      const fate = await settler.run(settleShard(settler.place, incarnation, ids[at] ?? ROOT));
      // After the change replicas that lag may be told, which is nobody's loss.
      if (fate !== "changing") return;
      looks += 1;
      refusals += prepares.get(settler.process) ?? 0;
    }
  };
  const settling = settlers.map(settle);
  await it.endChange(it.beginChange(sharder, incarnation));
  isOver = true;
  for (const one of settling) await it.endChange(one);
  stopCounting();
  if (looks < ids.length) throw new Error("nobody has looked at the change");
  return refusals;
};

/** How many rows were written beside a split, and how often the writing proxy asked a replica for a register that says where: reads, promises and acceptances. */
type RowsBesideASharder = { readonly rows: number; readonly asked: number };

const WRITERS = 20;

/** Rows are written all the while a listing is split, some twenty at a time, by the proxy that splits it or by another one. */
export const rowsBesideASharder = async (
  it: ContainersDirector,
  writes: "the same proxy" | "another one",
): Promise<RowsBesideASharder> => {
  const sharder = it.newProxy();
  const writer = writes === "the same proxy" ? sharder : it.newProxy();
  await it.do(sharder, "create");
  for (const name of ["o1", "o2"]) await it.do(sharder, "put", name);
  const split = await it.run(sharder, (place, incarnation) => planChange(place, incarnation, splitAt(ROOT, "o1")));
  if (typeof split === "string") throw new Error("the split is not planned");
  const { incarnation } = split.record;
  let [rows, asked] = [0, 0];
  const isAsked = ({ from, kind, space, to, way }: Message): boolean =>
    from === writer.process &&
    way === "request" &&
    space === "container" &&
    to === 0 &&
    (kind === "read" || kind === "prepare" || kind === "accept");
  const stopCounting = it.lose((message) => {
    if (isAsked(message)) asked += 1;
    return false;
  });
  let isOver = false;
  const write = async (number: number): Promise<void> => {
    while (!isOver) {
      const version = ballotOf(incarnation, timestampAt(it.nowMs()), (0x100 + rows++).toString(16).padStart(8, "0"));
      const row = { name: `n${number}`, version, isDeleted: true, objects: 0, bytes: 0, payload: new Uint8Array() };
      const end = await writer.run(placeRow(writer.place, incarnation, row));
      if (end !== "stored") throw new Error("a row was not written");
    }
  };
  const writing = Array.from({ length: WRITERS }, (_, number) => write(number));
  await it.endChange(it.beginChange(sharder, incarnation));
  isOver = true;
  for (const one of writing) await it.endChange(one);
  stopCounting();
  return { rows, asked };
};
