import type { ContainersDirector } from "./director.ts";
import type { Operation } from "./history.ts";
import { RECLAIM_AGE_MS } from "./life.ts";
import type { Mutation } from "./planted-mistakes.ts";
import type { Message } from "./world.ts";

/**
 * Lives of an object that is deleted, and whose deletion replicas 0, 1 and 2 forget, in which something of the time before comes late: what each rule of
 * PROTOCOL section 7 about forgetting is for. `answers` are those of the rule; under the mistake the history is impossible.
 */
type ReclaimInterleaving = {
  readonly title: string;
  readonly mistake: Mutation;
  readonly play: (it: ContainersDirector) => Promise<readonly Operation["status"][]>;
  readonly answers: readonly Operation["status"][];
};

const ALL = [0, 1, 2] as const;
/** Longer than a message takes, and than what is young. */
const SETTLED_MS = 50;

type Wanted = Pick<Message, "kind"> & Partial<Pick<Message, "question" | "way">> & { readonly to?: number };

const messages =
  (space: Message["space"], { kind, question, to, way }: Wanted) =>
  (message: Message): boolean =>
    message.space === space &&
    message.kind === kind &&
    (to === undefined || message.to === to) &&
    (way === undefined || message.way === way) &&
    (question === undefined || message.question === question);

/** The deletion is old by now, and who may has forgotten it. */
const forget = async (it: ContainersDirector): Promise<void> => {
  await it.pass(RECLAIM_AGE_MS + SETTLED_MS);
  await it.reclaim(...ALL);
};

/** What a reader sees that replica 0 does not answer. */
const readWithout0 = (it: ContainersDirector): Promise<Operation["status"]> => {
  it.lose((message) => message.to === 0 && message.space === "object" && message.kind === "read");
  return it.do(it.newProxy(), "get", "o1");
};

const memberIsBehind: ReclaimInterleaving = {
  title: "a deletion that one member has not heard of is forgotten by nobody [E2]",
  mistake: "a tombstone is removed before all members have it [E2]",
  play: async (it) => {
    const client = it.newProxy();
    await it.do(client, "create");
    await it.do(client, "put", "o1");
    await it.pass(SETTLED_MS);
    const heard = it.lose((message) => message.space === "object" && message.to === 2);
    const deleted = await it.do(client, "delete", "o1");
    await it.pass(SETTLED_MS);
    heard();
    await forget(it);
    return [deleted, await readWithout0(it)];
  },
  answers: [200, 404],
};

const acceptIsLate: ReclaimInterleaving = {
  title: "an ACCEPT that was sent before a deletion which is forgotten is refused [E2]",
  mistake: "the mark of registers is not raised [E2]",
  play: async (it) => {
    const client = it.newProxy();
    await it.do(client, "create");
    const isWrite = messages("object", { kind: "accept", to: 2, way: "request" });
    const release = it.hold((message) => isWrite(message) && message.from === client.process);
    await it.do(client, "put", "o1");
    await it.pass(SETTLED_MS);
    // It hears of the deletion from the others alone, so that it has promised nobody anything.
    const other = it.newProxy();
    const heard = it.lose(
      (message) => message.space === "object" && message.to === 2 && message.from === other.process,
    );
    const deleted = await it.do(other, "delete", "o1");
    await it.pass(SETTLED_MS);
    heard();
    await it.repair(2);
    await forget(it);
    release();
    await it.pass(SETTLED_MS);
    return [deleted, await readWithout0(it)];
  },
  answers: [200, 404],
};

const pullIsLate: ReclaimInterleaving = {
  title: "what another replica answered before a deletion was forgotten here is thrown away [E3]",
  mistake: "what was asked for before a removal is installed after it [E3]",
  play: async (it) => {
    const client = it.newProxy();
    await it.do(client, "create");
    const missed = it.lose((message) => message.space === "object" && message.to === 2);
    await it.do(client, "put", "o1");
    await it.pass(SETTLED_MS);
    missed();
    const isFetched = messages("object", { kind: "repair", question: "fetch", way: "answer" });
    const release = it.hold(isFetched);
    it.beginRepair(2);
    await it.sent(isFetched);
    const deleted = await it.do(client, "delete", "o1");
    await forget(it);
    release();
    await it.pass(SETTLED_MS);
    return [deleted, await readWithout0(it)];
  },
  answers: [200, 404],
};

const rowIsLate: ReclaimInterleaving = {
  title: "a row that was sent before its deletion which is forgotten is in no listing [E5]",
  mistake: "the mark of rows is not raised [E5]",
  play: async (it) => {
    const client = it.newProxy();
    await it.do(client, "create");
    const isRow = messages("container", { kind: "row", to: 2, way: "request" });
    const release = it.hold((message) => isRow(message) && message.from === client.process);
    const put = await it.do(client, "put", "o1");
    await it.pass(SETTLED_MS);
    const other = it.newProxy();
    const deleted = await it.do(other, "delete", "o1");
    await it.pass(SETTLED_MS);
    for (const index of ALL) await it.repair(index);
    await forget(it);
    release();
    await it.pass(SETTLED_MS);
    it.lose((message) => message.to === 0 && message.kind === "list");
    return [put, deleted, await it.do(it.newProxy(), "list")];
  },
  answers: [200, 200, 200],
};

export const RECLAIM_INTERLEAVINGS: readonly ReclaimInterleaving[] = [
  memberIsBehind,
  acceptIsLate,
  pullIsLate,
  rowIsLate,
];
