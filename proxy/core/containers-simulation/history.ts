import type { Ballot, Incarnation } from "../../../common/ballot.ts";
import { hasSequentialOrder } from "../../../common/simulation/linearizability.ts";
import { decodeContainerRecord, type Name, type Row } from "../../../storage-node/wire.ts";
import { setOf } from "../container-place.ts";
import { CONTAINER, membersIn, objectName, PLACE, type World } from "./world.ts";

/** What happened, with its answer; undefined is an unknown outcome. */
export type Operation = {
  readonly start: number;
  readonly end: number;
  readonly kind: "create" | "drop" | "look" | "list" | "put" | "create-object" | "post" | "delete" | "get";
  readonly name: string;
  readonly value: string;
  readonly status: 200 | 404 | 409 | 412 | undefined;
  readonly version?: Ballot | undefined;
  /** `count`: what the figures say, where they were asked for. */
  readonly listed?: {
    readonly incarnation: Incarnation;
    readonly rows: readonly Row[];
    readonly count?: number | undefined;
  };
};

type Store = { readonly isOpen: boolean; readonly objects: Readonly<Record<string, string>> };

const applyToStore = (store: Store, { kind, name, value, status }: Operation): Store | undefined => {
  const { isOpen, objects } = store;
  const present = objects[name];
  const set = (next: string | undefined): Store => {
    const { [name]: _, ...others } = objects;
    return { isOpen, objects: next === undefined ? others : { ...others, [name]: next } };
  };
  const allows = (real: Operation["status"], next: Store): Store | undefined =>
    status === real || (status === undefined && real === 200) ? next : undefined;
  switch (kind) {
    case "create":
      return allows(200, { isOpen: true, objects });
    case "drop":
      if (!isOpen) return allows(404, store);
      return Object.keys(objects).length > 0 ? allows(409, store) : allows(200, { isOpen: false, objects });
    case "look":
    case "list":
      return allows(isOpen ? 200 : 404, store);
    case "put":
      return isOpen ? allows(200, set(value)) : allows(404, store);
    case "create-object":
      // Which of two refusals comes first is left open.
      if (present !== undefined) return allows(412, store);
      return isOpen ? allows(200, set(value)) : allows(404, store);
    case "post":
      return present === undefined ? allows(404, store) : allows(200, set(`${present.split("+")[0]}${value}`));
    case "delete":
      return present === undefined ? allows(404, store) : allows(200, set(undefined));
    case "get":
      if (present === undefined) return allows(404, store);
      return present === value ? allows(200, store) : undefined;
  }
};

const keyOfStore = ({ isOpen, objects }: Store): string =>
  `${isOpen} ${Object.entries(objects)
    .toSorted(([left], [right]) => (left < right ? -1 : 1))
    .join()}`;

/** P3 and [B2]: what was acknowledged before a listing began is in it, and nothing of another life. */
export const listingProblem = (history: readonly Operation[], names: readonly string[]): string | undefined => {
  for (const list of history) {
    if (list.listed === undefined) continue;
    const { incarnation, rows } = list.listed;
    const foreign = rows.find((row) => !row.version.startsWith(incarnation));
    if (foreign !== undefined) return `a listing shows a row of another life: ${foreign.name} ${foreign.version}`;
    for (const name of names) {
      const done = history.filter(
        (operation) =>
          operation.name === name &&
          operation.end < list.start &&
          operation.status === 200 &&
          operation.version?.startsWith(incarnation) === true &&
          operation.kind !== "get",
      );
      const last = done.toSorted((a, b) => ((a.version ?? "") < (b.version ?? "") ? 1 : -1))[0];
      const version = last?.version;
      if (last === undefined || version === undefined) continue;
      const shown = rows.find((row) => row.name === name);
      if (shown !== undefined) {
        if (shown.version < version) return `a listing shows ${name} as it was before ${last.kind}`;
        if (shown.version === version && last.kind === "delete") return `a listing shows the deleted ${name}`;
        continue;
      }
      if (last.kind === "delete") continue;
      const mayBeDeleted = history.some(
        (operation) =>
          operation.name === name &&
          operation.kind === "delete" &&
          operation.start < list.end &&
          (operation.status === undefined || (operation.version !== undefined && operation.version > version)),
      );
      if (!mayBeDeleted) return `a listing lacks ${name}, acknowledged before`;
    }
  }
  return undefined;
};

/** After everything was finished: listing and registers say the same, replicas are equal, bodies are those of their versions. */
export const finalProblem = (world: World, history: readonly Operation[]): string | undefined => {
  const listed = history.findLast((operation) => operation.kind === "list")?.listed;
  for (const name of world.names) {
    const read = history.findLast((operation) => operation.kind === "get" && operation.name === name);
    const row = listed?.rows.find((item) => item.name === name);
    if (row?.version !== read?.version) return `${name} is listed as ${row?.version} and read as ${read?.version}`;
  }
  const { problem, shards } = shardsLeft(world);
  if (problem !== undefined) return problem;
  for (const name of [CONTAINER, ...shards, ...world.names.map(objectName)]) {
    const held = membersIn(world, name).map((replica) => replica.held(name));
    if (new Set(held.map((it) => it?.register.version)).size > 1) {
      const states = held.map((it) => `${it?.register.version} ${it?.register.ballot} ${it?.register.state}`);
      return `replicas of ${name.path} differ: ${states.join(", ")}`;
    }
    for (const it of held) {
      if (it !== undefined && it.storedBytes !== it.register.bodyLength)
        return `${name.path} has the body of another version`;
    }
  }
  // A replica that takes rows without asking keeps their figures elsewhere.
  if (listed === undefined || world.mutation === "rows are taken in any state of the container [B1]") return undefined;
  for (const listing of shards.length > 0 ? shards : [CONTAINER]) {
    const spaces = membersIn(world, listing).map(({ replica }) => replica.summary(listing, listed.incarnation).setHash);
    if (new Set(spaces).size > 1) return "replicas of the listing differ";
  }
  return undefined;
};

/** Where the container's rows are in the end: no change is under way, and every shard is as it should be. */
const shardsLeft = (world: World): { readonly problem: string | undefined; readonly shards: readonly Name[] } => {
  const register = membersIn(world, CONTAINER)[0]?.held(CONTAINER)?.register;
  const record = register === undefined || register.isTombstone ? undefined : decodeContainerRecord(register.metadata);
  if (world.shards === undefined || record?.shards === undefined) return { problem: undefined, shards: [] };
  const { change, index, rows } = record.shards;
  if (change !== undefined) return { problem: "a change of shards never ends", shards: [] };
  if (index !== undefined && rows !== "dropped") return { problem: `the container's own rows are ${rows}`, shards: [] };
  const shards = (index ?? []).map(({ id }) => setOf(PLACE, record.incarnation, id));
  for (const shard of shards) {
    const held = membersIn(world, shard)[0]?.held(shard)?.register;
    const state = held === undefined ? "absent" : decodeContainerRecord(held.metadata);
    if (state === "absent" || state.status !== "open" || state.shards?.rows !== "here" || held?.isTombstone === true)
      return { problem: `shard ${shard.path} is ${JSON.stringify(state)}`, shards };
  }
  return { problem: undefined, shards };
};

/** Figures: every name that certainly is there is counted, and none that certainly is not, or twice. */
const figuresProblem = (history: readonly Operation[], names: readonly string[]): string | undefined => {
  for (const list of history) {
    const { count, incarnation } = list.listed ?? {};
    if (count === undefined || incarnation === undefined) continue;
    const isOf = (operation: Operation): boolean => operation.version?.startsWith(incarnation) === true;
    let certain = 0;
    let possible = 0;
    for (const name of names) {
      const writes = history.filter((one) => one.name === name && one.kind !== "get" && one.start < list.end);
      const deletions = writes.filter(({ kind }) => kind === "delete");
      const puts = writes.filter(({ kind }) => kind !== "delete");
      const isCovered = (put: Operation): boolean =>
        put.version !== undefined &&
        deletions.some((one) => one.end < list.start && isOf(one) && (one.version ?? "") > (put.version ?? ""));
      const isUncertain = deletions.some((one) => one.status === undefined || one.end > list.start);
      if (puts.some((put) => !isCovered(put) && (put.status === undefined || put.status === 200))) possible += 1;
      const isThere = puts.some((put) => put.status === 200 && put.end < list.start && isOf(put) && !isCovered(put));
      if (isThere && !isUncertain) certain += 1;
    }
    if (count < certain || count > possible) return `${count} names are counted of ${certain} to ${possible}`;
  }
  const last = history.findLast(({ kind }) => kind === "list")?.listed;
  if (last?.count !== undefined && last.count !== last.rows.length)
    return `${last.count} names are counted and ${last.rows.length} listed`;
  return undefined;
};

/** What is wrong with a history and what it left behind, if anything. Requires: its faults are over, and its last operations read everything. */
export const problemOf = (world: World, history: readonly Operation[]): string | undefined => {
  const problem =
    finalProblem(world, history) ?? listingProblem(history, world.names) ?? figuresProblem(history, world.names);
  if (problem !== undefined) return problem;
  const isPossible = hasSequentialOrder(history, { isOpen: false, objects: {} }, applyToStore, keyOfStore);
  return isPossible ? undefined : "the history has no sequential order";
};
