import type { Ballot, Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { ListQuery, ListReply, Register, Row, RowSummary } from "../../storage-node/wire.ts";
import { type DeviceAnswer, judgeAvailable } from "../core/available-read.ts";
import { type ListAnswer, obstacleWith } from "../core/script.ts";
import { askHandOff } from "./available-send.ts";
import { MESSAGE_TIMEOUT_MS } from "./messages.ts";
import type { Members, ReplicaSet } from "./partition.ts";
import { groupByNode, healthyFirst, type Replica } from "./replicas.ts";

/** What devices said of a name, where that is enough to say something ([H5]). */
export type AvailableRead = {
  readonly register: Register | undefined;
  /** The whole body, where it is small and came with the answer. */
  readonly body: Buffer | undefined;
  readonly holders: readonly Replica[];
  /** Members that answered. */
  readonly members: number;
};

type MemberAnswer<T> = { readonly replica: Replica; readonly value: T };

/**
 * What members answer that are not suspects: all of them, or the first so many. Where the partition has other members by now, or is on its way to them, the answer of who
 * says so is none: what is read may be stale, and the next read asks those that are known then.
 */
const askMembers = <T>(
  { name, partition }: ReplicaSet,
  wanted: number,
  ask: (
    replica: Replica,
    members: Members,
    answer: (error: RingsteadError | undefined, value: T | undefined) => void,
  ) => void,
): Promise<readonly MemberAnswer<T>[]> =>
  new Promise((resolve) => {
    const { members } = partition;
    const answered: MemberAnswer<T>[] = [];
    const replicas = healthyFirst(name, members.voters).filter(({ isSuspect }) => !isSuspect);
    let open = replicas.length;
    if (open === 0) resolve(answered);
    for (const replica of replicas)
      ask(replica, members, (error, value) => {
        replica.heard(error);
        open -= 1;
        if (error !== undefined) partition.meet(error, members);
        else if (value !== undefined) answered.push({ replica, value });
        if (open === 0 || answered.length === wanted) resolve([...answered]);
      });
  });

/** What hand-offs answer, the suspects among them or the others. */
const askHandOffs = async <T>(
  set: ReplicaSet,
  suspects: "suspects" | "others",
  ask: (client: Parameters<Parameters<typeof askHandOff>[1]>[0]) => Promise<T>,
): Promise<readonly MemberAnswer<T>[]> => {
  const ordered = healthyFirst(set.name, set.handOffs ?? []);
  const handOffs = ordered.filter(({ isSuspect }) => isSuspect === (suspects === "suspects"));
  const answers = await Promise.all(
    handOffs.map(async (replica) => {
      const answer = await askHandOff(replica, ask);
      return answer instanceof RingsteadError ? [] : [{ replica, value: answer.value }];
    }),
  );
  return answers.flat();
};

/**
 * R members, or, where fewer answer, hand-offs too. Nothing is finished: what is highest is what is read. Undefined where too few answer to say anything.
 * @param hear is told every ballot that was heard of: what is written after this read is to be above it
 */
export const readAvailable = async (
  set: ReplicaSet,
  bodyLimit: number,
  hear: (ballot: Ballot) => void,
): Promise<AvailableRead | undefined> => {
  const { readCount } = set.partition.members.quorum;
  const bodies = new Map<Replica, Buffer>();
  const found = await askMembers<{ readonly register: Register | undefined }>(
    set,
    readCount,
    (replica, { epoch }, answer) => {
      for (const { client } of groupByNode([replica]))
        client.read(
          set.name,
          bodyLimit,
          MESSAGE_TIMEOUT_MS,
          (error, reply) => {
            if (reply?.body !== undefined) bodies.set(replica, reply.body);
            answer(error, reply);
          },
          epoch,
        );
    },
  );
  const members = found.map(({ replica, value }) => ({ device: replica, register: value.register }));
  const handOffs: DeviceAnswer<Replica>[] = [];
  // A suspect may have the only copy: where nobody else has one its time-out is worth it.
  for (const suspects of ["others", "suspects"] as const) {
    if (found.length >= readCount || handOffs.some(({ register }) => register !== undefined)) break;
    if (suspects === "suspects" && judgeAvailable(members, handOffs, readCount) !== undefined) break;
    const kept = await askHandOffs(set, suspects, (client) => client.kept(set.name, MESSAGE_TIMEOUT_MS));
    for (const { replica, value } of kept) handOffs.push({ device: replica, register: value });
  }
  for (const { register } of [...members, ...handOffs]) if (register !== undefined) hear(register.ballot);
  const highest = judgeAvailable(members, handOffs, readCount);
  if (highest === undefined) return undefined;
  const { holders, register } = highest;
  const body = holders.map((holder) => bodies.get(holder)).find((bytes) => bytes !== undefined);
  return { register, body, holders, members: found.length };
};

const NO_SUMMARY: RowSummary = { rows: 0, objects: 0, bytes: 0, setHash: "" };

/** One LIST of R members, or, where fewer answer, of one at least and of hand-offs: all with rows, and names are merged. */
export const listAvailable = async (
  set: ReplicaSet,
  incarnation: Incarnation,
  query: ListQuery,
): Promise<ListAnswer> => {
  const { readCount } = set.partition.members.quorum;
  const asked: ListQuery = { ...query, withDeleted: true };
  const found = await askMembers<ListReply>(set, Number.POSITIVE_INFINITY, ({ client }, { epoch }, answer) =>
    client.list(set.name, incarnation, asked, MESSAGE_TIMEOUT_MS, answer, epoch),
  );
  let obstacle: Exclude<ListAnswer["kind"], "rows"> = "unavailable";
  const pages: { replica: number; summary: RowSummary; rows: readonly Row[] }[] = [];
  for (const { value } of found) {
    if (value.kind === "rows") pages.push({ replica: -1, summary: value.summary, rows: value.rows });
    else if (value.kind !== "behind") obstacle = obstacleWith(obstacle, value.kind);
  }
  if (obstacle !== "unavailable") return { kind: obstacle };
  // Hand-offs know of what was written lately alone: without a member nothing can be said of the rest.
  if (pages.length === 0) return { kind: "unavailable" };
  if (pages.length < readCount) {
    const kept = await askHandOffs(set, "others", (client) =>
      client.keptRows(set.name, incarnation, query, MESSAGE_TIMEOUT_MS),
    );
    for (const { value } of kept) pages.push({ replica: -1, summary: NO_SUMMARY, rows: value });
  }
  return pages.length < readCount ? { kind: "unavailable" } : { kind: "rows", pages, isPartial: true };
};
