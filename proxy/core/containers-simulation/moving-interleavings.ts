import type { Operation } from "./history.ts";
import type { ContainersDirector } from "./director.ts";
import type { MoveOutcome } from "../partition-move.ts";
import type { Mutation } from "./planted-mistakes.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import { idOf, type Message } from "./world.ts";

/**
 * Lives of a partition of objects on its way from replicas 0, 1, 2 to others, in which one thing happens at the worst moment: what each rule of
 * PROTOCOL section 8 is for. `answers` are those of the rule; under the mistake they are others, or the history is impossible.
 */
type MovingInterleaving = {
  readonly title: string;
  readonly mistakes: readonly (readonly [Mutation, "history" | "silence"])[];
  readonly play: (it: ContainersDirector) => Promise<readonly Operation["status"][]>;
  readonly answers: readonly Operation["status"][];
};

export const MEMBERS = [0, 1, 2].map(idOf);
export const REPLICAS = 5;
/** Replica 3 comes in the place of 0. */
const TARGET = [3, 1, 2].map(idOf);

type Wanted = { readonly kind?: Message["kind"]; readonly way?: Message["way"]; readonly to?: readonly number[] };

/** Messages about objects, from one proxy or whomever. */
const about =
  ({ kind, to, way }: Wanted, from?: SimulatedProxy) =>
  (message: Message): boolean =>
    message.space === "object" &&
    (kind === undefined || message.kind === kind) &&
    (way === undefined || message.way === way) &&
    (to === undefined || to.includes(message.to)) &&
    (from === undefined || message.from === from.process);

/** As many runs of the mover as it takes, with repair of the newcomers where they have to copy. */
const moveWhole = async (it: ContainersDirector, mover: SimulatedProxy, target: readonly string[]): Promise<void> => {
  for (let run = 0; run < 6; run++) {
    const outcome = await it.move(mover, target);
    if (outcome === "done") return;
    if (outcome === "copying") for (const newcomer of [3, 4]) await it.repair(newcomer);
  }
  throw new Error("a move does not end");
};

/** A move stops before it decides what comes next; gives what lets it go on. */
const untilDecision = async (
  it: ContainersDirector,
  mover: SimulatedProxy,
): Promise<() => Promise<MoveOutcome | undefined>> => {
  const isDecision = about({ kind: "prepare", way: "request" }, mover);
  const decide = it.hold(isDecision);
  const move = it.beginMove(mover, TARGET);
  await it.sent(isDecision);
  return () => {
    decide();
    return it.endMove(move);
  };
};

/** A container and an object, and everything on the way: replica 3 has copied, and nobody is sealed yet. */
const jointly = async (it: ContainersDirector, mover: SimulatedProxy, ...others: SimulatedProxy[]): Promise<void> => {
  const first = it.newProxy();
  await it.do(first, "create");
  await it.do(first, "put", "o1");
  if ((await it.move(mover, TARGET)) !== "copying") throw new Error("nothing is to be copied");
  await it.repair(3);
  // They know the joint configuration.
  for (const proxy of others) await it.do(proxy, "get", "o1");
};

const oldMembersAlone: MovingInterleaving = {
  title: "a write of a joint phase that the old members alone have is no success [M1]",
  mistakes: [["a write of a joint phase needs the old members alone [M1]", "history"]],
  play: async (it) => {
    const [mover, writer, reader] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await jointly(it, mover, writer);
    const heard = it.lose(about({ kind: "accept", to: [2, 3] }, writer));
    const put = await it.do(writer, "put", "o1");
    heard();
    await moveWhole(it, mover, TARGET);
    it.lose(about({ to: [1] }, reader));
    return [put, await it.do(reader, "get", "o1")];
  },
  answers: [undefined, 200],
};

const twoEpochs: MovingInterleaving = {
  title: "an ACCEPT that one replica took in the epoch before does not count beside one that took it in this [M1]",
  mistakes: [["answers of two epochs are counted together [M1]", "history"]],
  play: async (it) => {
    const [mover, writer, reader, first] = [it.newProxy(), it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(first, "create");
    await it.do(first, "put", "o1");
    await it.do(writer, "look");
    const goOn = await untilDecision(it, mover);
    const told = it.lose(about({ kind: "configure", to: [0] }, mover));
    if ((await goOn()) !== "copying") throw new Error("nothing is to be copied");
    await it.repair(3);
    const heard = it.lose(about({ kind: "accept", to: [2] }, writer));
    const put = await it.do(writer, "put", "o1");
    heard();
    told();
    await moveWhole(it, mover, TARGET);
    it.lose(about({ to: [1] }, reader));
    return [put, await it.do(reader, "get", "o1")];
  },
  answers: [200, 200],
};

const agreedByTheOld: MovingInterleaving = {
  title: "what the old members agree on is finished in both sets before it is served [M1]",
  mistakes: [["what the old members agree on is served in a joint phase [M1]", "history"]],
  play: async (it) => {
    const [mover, writer, reader, last] = [it.newProxy(), it.newProxy(), it.newProxy(), it.newProxy()];
    await jointly(it, mover, writer, reader);
    const heard = it.lose(about({ kind: "accept", to: [2, 3] }, writer));
    void it.begin(writer, "put", "o1");
    await it.sent(about({ kind: "accept", way: "answer", to: [1] }, writer));
    await it.pass(1);
    writer.isDead = true;
    heard();
    const seen = it.lose(about({ kind: "read", to: [2] }, reader));
    const got = await it.do(reader, "get", "o1");
    seen();
    await moveWhole(it, mover, TARGET);
    it.lose(about({ to: [1] }, last));
    return [got, await it.do(last, "get", "o1")];
  },
  answers: [200, 200],
};

const copiedTooEarly: MovingInterleaving = {
  title: "what a newcomer copied before the old members knew of it is copied again [M2]",
  mistakes: [["a newcomer copies from members who have not heard of it [M2]", "history"]],
  play: async (it) => {
    const [mover, writer, reader, first] = [it.newProxy(), it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(first, "create");
    await it.do(first, "put", "o1");
    const goOn = await untilDecision(it, mover);
    const told = it.lose(about({ kind: "configure", to: [0, 1, 2] }));
    await goOn();
    await it.repair(3);
    const heard = it.lose(about({ kind: "accept", to: [1] }, writer));
    const put = await it.do(writer, "put", "o1");
    heard();
    told();
    await moveWhole(it, mover, TARGET);
    it.lose(about({ to: [2] }, reader));
    return [put, await it.do(reader, "get", "o1")];
  },
  answers: [200, 200],
};

const readTooLate: MovingInterleaving = {
  title: "who has not heard of the new members does not read what the old ones hold [M3]",
  mistakes: [
    ["nobody is sealed before the members change [M3]", "history"],
    ["sealed replicas are read [M3]", "history"],
  ],
  play: async (it) => {
    const [mover, writer, reader] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await jointly(it, mover, reader);
    const goOn = await untilDecision(it, mover);
    it.lose(about({ kind: "configure", to: [0, 1] }));
    await goOn();
    // Who writes knows the new members, so that nothing of it comes to those who do not.
    await it.do(writer, "get", "o1");
    const put = await it.do(writer, "put", "o1");
    await it.pass(1);
    it.lose(about({ kind: "read", to: [2] }, reader));
    return [put, await it.do(reader, "get", "o1")];
  },
  answers: [200, undefined],
};

const sealForgotten: MovingInterleaving = {
  title: "a sealed replica that lost its disk is sealed again when it votes [M3, M4]",
  mistakes: [["a replica that lost its disk forgets that it was sealed [M3]", "history"]],
  play: async (it) => {
    const [mover, writer, reader] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await jointly(it, mover, reader);
    const isFirst = it.lose(about({ kind: "seal", to: [2] }));
    const goOn = await untilDecision(it, mover);
    isFirst();
    it.replica(0).lose();
    it.replica(0).restart();
    for (let round = 0; round < 4; round++) {
      await it.repair(0);
      await it.pass(50);
    }
    const told = it.lose(about({ kind: "configure", to: [0, 2] }));
    await goOn();
    // Who writes knows the new members, so that nothing of it comes to those who do not.
    await it.do(writer, "get", "o1");
    const put = await it.do(writer, "put", "o1");
    await it.pass(1);
    const seen = it.lose(about({ kind: "read", to: [1] }, reader));
    const got = await it.do(reader, "get", "o1");
    seen();
    told();
    return [put, got];
  },
  answers: [200, undefined],
};

const agreedBelowTheFloor: MovingInterleaving = {
  title:
    "two copies of what one old member had do not make it established under a condition that was judged without it [M5]",
  mistakes: [["a partition has no floor [M5]", "history"]],
  play: async (it) => {
    const [mover, writer, creator, reader] = [it.newProxy(), it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(creator, "create");
    await it.do(writer, "look");
    const heard = it.lose(about({ kind: "accept", to: [0, 2] }, writer));
    void it.begin(writer, "put", "o1");
    await it.sent(about({ kind: "accept", way: "answer", to: [1] }, writer));
    await it.pass(1);
    writer.isDead = true;
    heard();
    const promised = it.lose(about({ kind: "prepare", to: [1] }, creator));
    const release = it.hold(about({ kind: "accept", way: "request" }, creator));
    const create = it.begin(creator, "create-object", "o1");
    await it.sent(about({ kind: "accept", way: "request" }, creator));
    promised();
    await moveWhole(it, mover, TARGET);
    const got = await it.do(reader, "get", "o1");
    release();
    return [got, await it.end(create)];
  },
  answers: [200, 412],
};

/** As where a new node that got two replicas of a partition dies. */
const newcomersDie: MovingInterleaving = {
  title: "writes go on where two replicas that are to come die, since one comes at a time [M6]",
  mistakes: [["all members change at once [M6]", "silence"]],
  play: async (it) => {
    const [mover, writer] = [it.newProxy(), it.newProxy()];
    await it.do(writer, "create");
    await it.move(mover, [3, 4, 2].map(idOf));
    it.replica(3).crash();
    it.replica(4).crash();
    return [await it.do(writer, "put", "o1")];
  },
  answers: [200],
};

const memberIsAway: MovingInterleaving = {
  title: "writes go on where a member is away while a newcomer copies",
  mistakes: [["a newcomer keeps nothing before it has caught up", "silence"]],
  play: async (it) => {
    const [mover, writer] = [it.newProxy(), it.newProxy()];
    await it.do(writer, "create");
    await it.move(mover, TARGET);
    it.lose(about({ to: [1] }));
    return [await it.do(writer, "put", "o1")];
  },
  answers: [200],
};

/** What one of them decided the other goes on with, although its target is another one. */
const twoMovers: MovingInterleaving = {
  title: "of two movers with different targets one goes on with what the other decided",
  mistakes: [],
  play: async (it) => {
    const [mover, other, client] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(client, "create");
    const isProposal = about({ kind: "accept", way: "request" }, mover);
    const release = it.hold(isProposal);
    const move = it.beginMove(mover, TARGET);
    await it.sent(isProposal);
    await it.move(other, [0, 4, 2].map(idOf));
    release();
    await it.endMove(move);
    return [await it.do(client, "put", "o1"), await it.do(client, "get", "o1")];
  },
  answers: [200, 200],
};

/** One of the first members was left out of every step of the move, and the others forget it. */
const firstMembersEmptied: MovingInterleaving = {
  title: "first members that were emptied ask all devices who keeps the partition before they vote in it again [M4]",
  mistakes: [["first members that were emptied ask nobody but each other [M4]", "history"]],
  play: async (it) => {
    const [mover, writer, reader] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(writer, "create");
    await it.do(writer, "put", "o1");
    await it.pass(50);
    it.lose(about({ kind: "configure", to: [2] }));
    await moveWhole(it, mover, [3, 4, 2].map(idOf));
    // Who writes knows the new members, so that nothing of it comes to those who do not.
    await it.do(writer, "get", "o1");
    const put = await it.do(writer, "put", "o1");
    await it.pass(50);
    for (const index of [0, 1]) {
      it.replica(index).lose();
      it.replica(index).restart();
    }
    // As long as two who may know cannot be asked it is nobody's.
    const isSilent = it.lose(about({ kind: "repair", to: [3, 4] }));
    for (let round = 0; round < 3; round++) {
      for (const index of [0, 1]) await it.repair(index);
      await it.pass(50);
    }
    const early = await it.do(reader, "get", "o1");
    isSilent();
    for (let round = 0; round < 3; round++) for (const index of [0, 1]) await it.repair(index);
    return [put, early, await it.do(reader, "get", "o1")];
  },
  answers: [200, undefined, 200],
};

export const MOVING_INTERLEAVINGS: readonly MovingInterleaving[] = [
  oldMembersAlone,
  twoEpochs,
  agreedByTheOld,
  copiedTooEarly,
  readTooLate,
  sealForgotten,
  agreedBelowTheFloor,
  newcomersDie,
  memberIsAway,
  twoMovers,
  firstMembersEmptied,
];
