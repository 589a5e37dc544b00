import type { ContainersDirector } from "./director.ts";
import type { Operation } from "./history.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import type { Message } from "./world.ts";
import type { Mutation } from "./planted-mistakes.ts";

/** An order of events that chance would take tens of thousands of seeds to hit. */
type Interleaving = {
  readonly title: string;
  /** The planted mistake that it exposes, and by what: a history that cannot be, or an operation that is not answered. */
  readonly mistake?: readonly [Mutation, "history" | "silence"];
  /** Gives the answers of the operations that matter. */
  readonly play: (director: ContainersDirector) => Promise<readonly Operation["status"][]>;
  readonly answers: readonly Operation["status"][];
};

const messageOf =
  ({ process }: SimulatedProxy, { to, kind, space, way }: Partial<Message>) =>
  (message: Message): boolean =>
    message.from === process &&
    (to === undefined || message.to === to) &&
    (kind === undefined || message.kind === kind) &&
    (space === undefined || message.space === space) &&
    (way === undefined || message.way === way);

/**
 * [B4]. The deleter's *closing* is at replica 0 alone. While replica 0 cannot be reached an object comes and goes; the deleter's retry meets
 * it. Refused for that row, with nothing proposed above the *closing* left behind, the deletion would still take effect as soon as somebody
 * finds that *closing*, with no live row left that could reopen the container.
 */
const closingLeftBehind: Interleaving = {
  title: "a deletion that was refused for a row does not take effect later, by the closing that it left behind [B4]",
  mistake: ["a retry of closing looks at rows again [B4]", "history"],
  play: async (it) => {
    const [deleter, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const reachOthers = it.lose(
      ({ from, to, kind, way }) => from === deleter.process && to !== 0 && kind === "accept" && way === "request",
    );
    const drop = it.begin(deleter, "drop");
    await it.sent(messageOf(deleter, { kind: "accept", to: 0, way: "answer" }));
    reachOthers();
    const rejoin = it.lose(({ to, kind }) => to === 0 && kind !== "list");
    const put = await it.do(other, "put", "o1");
    const dropped = await it.end(drop);
    const deleted = await it.do(other, "delete", "o1");
    rejoin();
    const rejoinAnother = it.lose(({ to }) => to === 1);
    const look = await it.do(other, "look");
    rejoinAnother();
    return [put, dropped, deleted, look];
  },
  answers: [200, 409, 200, 200],
};

/**
 * [W2], [W3] in a deletion. Its *closing* is at replica 0 alone, a change of headers by a dead proxy at replica 2 alone. The retry finds
 * the change and has to finish that first ([C1]); then its own *closing* turns out to be what takes effect. It is still its own.
 */
const closingFoundAgain: Interleaving = {
  title: "a deletion that finishes what another proxy left behind still knows its own closing [W2]",
  play: async (it) => {
    const [dying, deleter, other] = [it.newProxy(), it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const lateChange = it.lose(
      ({ from, to, kind, way }) => from === dying.process && kind === "accept" && (to !== 2 || way === "answer"),
    );
    void it.begin(dying, "create");
    await it.sent(messageOf(dying, { kind: "accept", to: 2, way: "answer" }));
    dying.isDead = true;
    lateChange();
    const isolateChange = it.lose(messageOf(deleter, { to: 2 }));
    const closeAtOne = it.lose(
      ({ from, to, kind, way }) => from === deleter.process && kind === "accept" && (to !== 0 || way === "answer"),
    );
    const drop = it.begin(deleter, "drop");
    await it.sent(messageOf(deleter, { kind: "accept", to: 0, way: "answer" }));
    isolateChange();
    const isolateClosing = it.lose(messageOf(deleter, { kind: "prepare", to: 0 }));
    await it.sent(messageOf(deleter, { kind: "accept", to: 2 }));
    isolateClosing();
    closeAtOne();
    const isolateAgain = it.lose(messageOf(deleter, { to: 2 }));
    const dropped = await it.end(drop);
    isolateAgain();
    return [dropped, await it.do(other, "look")];
  },
  answers: [200, 404],
};

/**
 * [B5]. The writer's rows are late. Meanwhile a reader finished its version, served it, and its container was emptied and deleted: the rows
 * are refused as moved, but the version took effect, and replicas that overwrote it remember that it was confirmed.
 *
 * [A3]. Where power loss took from the replicas what they remembered, that the version was overwritten says nothing of whether it took
 * effect, and void would be a guess.
 */
const rowsTooLate = (
  given: Pick<Interleaving, "title" | "mistake" | "answers">,
  losesPower: boolean,
): Interleaving => ({
  ...given,
  play: async (it) => {
    const [writer, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const areRows = messageOf(writer, { kind: "row", space: "container", way: "request" });
    const rowsGoOn = it.hold(areRows);
    const put = it.begin(writer, "put", "o1");
    await it.sent(areRows);
    const others = [await it.do(other, "get", "o1"), await it.do(other, "delete", "o1"), await it.do(other, "drop")];
    if (losesPower) it.losePower();
    rowsGoOn();
    return [...others, await it.end(put)];
  },
});

/**
 * [B5], [B6]. As above, but what the writer does not hear is that its version was accepted, and there is a next life by the time that
 * it asks: refused for a ballot of that life, it has to learn that its version took effect in the last one, and must not write it again.
 */
const answersTooLate: Interleaving = {
  title: "a version that was read in an earlier life is not written once more into the next [B5, B6]",
  mistake: ["a version is void unjudged [B5]", "history"],
  play: async (it) => {
    const [writer, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    const isAnswer = messageOf(writer, { kind: "accept", space: "object", way: "answer" });
    it.lose(isAnswer);
    const put = it.begin(writer, "put", "o1");
    await it.sent((message) => isAnswer(message) && message.to === 0);
    const others = [
      await it.do(other, "get", "o1"),
      await it.do(other, "delete", "o1"),
      await it.do(other, "drop"),
      await it.do(other, "create"),
      await it.do(other, "put", "o1"),
    ];
    return [...others, await it.end(put)];
  },
  answers: [200, 200, 200, 200, 200, 200],
};

/**
 * [B5], "through a PREPARE, not a plain read". What is judged afterwards does not need it: that an incarnation is over stays true, and an
 * established read says so as well as promises do. What needs it is to go on: replica 0 never heard of the container and refuses its rows
 * for as long as nobody tells it, and a read of what one replica has confirmed tells nobody.
 */
const replicaBehind: Interleaving = {
  title: "a row goes through where one of two replicas has yet to hear of the container [B5]",
  mistake: ["the container of a refused row is read without a PREPARE [B5]", "silence"],
  play: async (it) => {
    const other = it.newProxy();
    const hear = it.lose(({ to, space }) => to === 0 && space === "container");
    const created = await it.do(other, "create");
    hear();
    it.lose(({ to }) => to === 2);
    return [created, await it.do(other, "put", "o1")];
  },
  answers: [200, 200],
};

/** [B6]. A proxy that remembers the life before last has the later clock, and meets an object of the present one. */
const staleProxy = (kind: "delete" | "post"): Interleaving => ({
  title: `a proxy that remembers an earlier life does a ${kind} to the object of the present one [B6]`,
  mistake: ["ballots compare without the incarnation [B6]", "history"],
  play: async (it) => {
    const [stale, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    await it.do(stale, "look");
    const others = [await it.do(other, "drop"), await it.do(other, "create"), await it.do(other, "put", "o1")];
    return [...others, await it.do(stale, kind, "o1")];
  },
  answers: [200, 200, 200, 200],
});

/** [B6]. As before, but the proxy dies when its version is accepted: whoever finds it has nothing left to go back to. */
const staleProxyDies: Interleaving = {
  title: "what a dead proxy wrote for an earlier life does not hide the object of the present one [B6]",
  mistake: ["ballots compare without the incarnation [B6]", "history"],
  play: async (it) => {
    const [stale, other] = [it.newProxy(), it.newProxy()];
    await it.do(other, "create");
    await it.do(stale, "look");
    await it.do(other, "drop");
    await it.do(other, "create");
    await it.do(other, "put", "o1");
    // Its clock is past everything that it heard of.
    await it.do(stale, "get", "o1");
    void it.begin(stale, "put", "o1");
    await it.sent(messageOf(stale, { kind: "accept", way: "answer" }));
    stale.isDead = true;
    return [await it.do(other, "get", "o1")];
  },
  answers: [200],
};

export const INTERLEAVINGS: readonly Interleaving[] = [
  closingLeftBehind,
  closingFoundAgain,
  rowsTooLate(
    {
      title: "a version that was read before its container went is a success to its late writer [B5]",
      mistake: ["a version is void unjudged [B5]", "history"],
      answers: [200, 200, 200, 200],
    },
    false,
  ),
  rowsTooLate(
    {
      title: "a version of an earlier life that nobody remembers is neither void nor written again [B5]",
      mistake: ["a version of unknown fate is void [B5]", "history"],
      answers: [200, 200, 200, undefined],
    },
    true,
  ),
  answersTooLate,
  replicaBehind,
  staleProxy("delete"),
  staleProxy("post"),
  staleProxyDies,
];
