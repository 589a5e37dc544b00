import type { Ballot, Incarnation } from "../../../common/ballot.ts";
import { hasSequentialOrder } from "../../../common/simulation/linearizability.ts";
import type { Row } from "../../../storage-node/wire.ts";
import { CONTAINER, membersIn, objectName, type World } from "./world.ts";

/** What happened, with its answer; undefined is an unknown outcome. */
export type Operation = {
  readonly start: number;
  readonly end: number;
  readonly kind: "create" | "drop" | "look" | "list" | "put" | "create-object" | "post" | "delete" | "get";
  readonly name: string;
  readonly value: string;
  readonly status: 200 | 404 | 409 | 412 | undefined;
  readonly version?: Ballot | undefined;
  readonly listed?: { readonly incarnation: Incarnation; readonly rows: readonly Row[] };
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
  for (const name of [CONTAINER, ...world.names.map(objectName)]) {
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
  const spaces = membersIn(world, CONTAINER).map(
    ({ replica }) => replica.summary(CONTAINER, listed.incarnation).setHash,
  );
  return new Set(spaces).size > 1 ? "replicas of the listing differ" : undefined;
};

/** What is wrong with a history and what it left behind, if anything. Requires: its faults are over, and its last operations read everything. */
export const problemOf = (world: World, history: readonly Operation[]): string | undefined => {
  const problem = finalProblem(world, history) ?? listingProblem(history, world.names);
  if (problem !== undefined) return problem;
  const isPossible = hasSequentialOrder(history, { isOpen: false, objects: {} }, applyToStore, keyOfStore);
  return isPossible ? undefined : "the history has no sequential order";
};
