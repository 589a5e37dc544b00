import { type Meaning, orderOf } from "../../../common/simulation/sequential-order.ts";
import { finalProblem, listingProblem, type Operation } from "./history.ts";
import type { World } from "./world.ts";

/** An object as its clients see it; undefined is "absent". */
type ObjectState = { readonly value: string | undefined };
type ContainerState = { readonly isOpen: boolean };

const isSuccess = ({ status }: Operation): boolean => status === 200;

/** A value that no read ever saw is as good as any other such one. */
const UNSEEN = "?";

/** What the operations of one object mean; of a container's those that say that nothing is in it. */
export const meaningOfObject = (history: readonly Operation[]): Meaning<ObjectState, Operation> => {
  const seen = new Set<string>();
  for (const { kind, status, value } of history)
    if (kind === "get" && status === 200) for (const part of value.split("+")) seen.add(part);
  const valueOf = (value: string): string => (seen.has(value.replace("+", "")) ? value : UNSEEN);
  const posted = (base: string, value: string): string =>
    `${base.split("+")[0]}${seen.has(value.replace("+", "")) ? value : `+${UNSEEN}`}`;
  return {
    initial: { value: undefined },
    keyOf: ({ value }) => value ?? " ",
    classOf: ({ kind, value }) => `${kind} ${kind === "delete" || kind === "drop" ? "" : valueOf(value)}`,
    apply(state, operation) {
      const { kind, status, value } = operation;
      const present = state.value;
      switch (kind) {
        case "put":
          return { value: valueOf(value) };
        case "create-object":
          if (status === 412) return present === undefined ? undefined : state;
          return present === undefined ? { value: valueOf(value) } : undefined;
        case "post":
          if (status === 404) return present === undefined ? state : undefined;
          return present === undefined ? undefined : { value: posted(present, value) };
        case "delete":
          if (status === 404) return present === undefined ? state : undefined;
          return present === undefined ? undefined : { value: undefined };
        case "get":
          return present === (status === 404 ? undefined : value) ? state : undefined;
        case "drop":
          return present === undefined ? state : undefined;
        case "create":
        case "look":
        case "list":
          return state;
      }
    },
  };
};

/** Those that say something of one object. Writes that were refused for want of their container do not. */
const aboutObject = (history: readonly Operation[], name: string): readonly Operation[] =>
  history.filter((operation) => {
    const { kind, status } = operation;
    if (kind === "drop") return isSuccess(operation);
    if (operation.name !== name) return false;
    return status !== 404 || (kind !== "put" && kind !== "create-object");
  });

const MEANING_OF_CONTAINER: Meaning<ContainerState, Operation> = {
  initial: { isOpen: false },
  keyOf: ({ isOpen }) => String(isOpen),
  classOf: ({ kind }) => kind,
  apply(state, { kind, status }) {
    switch (kind) {
      case "create":
        return { isOpen: true };
      case "drop":
        if (status === 404) return state.isOpen ? undefined : state;
        if (status === 409) return state.isOpen ? state : undefined;
        return state.isOpen ? { isOpen: false } : undefined;
      case "look":
      case "list":
      case "put":
      case "create-object":
      case "post":
      case "delete":
      case "get":
        return state.isOpen === (status === 200) ? state : undefined;
    }
  },
};

const aboutContainer = (history: readonly Operation[]): readonly Operation[] =>
  history.filter((operation) => {
    const { kind, status } = operation;
    if (kind === "create" || kind === "drop" || kind === "look" || kind === "list") return true;
    return (kind === "put" || kind === "create-object") && (status === 200 || status === 404);
  });

/**
 * What is wrong with a long history, if anything: each object is a register of its own, and so is the container, with what others say of it; a
 * successful deletion of the container is a moment in which every object is absent.
 */
export const longProblemOf = (world: World, history: readonly Operation[]): string | undefined => {
  const problem = finalProblem(world, history) ?? listingProblem(history, world.names);
  if (problem !== undefined) return problem;
  for (const name of world.names) {
    const about = aboutObject(history, name);
    const verdict = orderOf(about, meaningOfObject(about));
    world.note?.(`checker: ${verdict}`);
    if (verdict === "impossible") return `the history of ${name} has no sequential order`;
  }
  const verdict = orderOf(aboutContainer(history), MEANING_OF_CONTAINER);
  world.note?.(`checker: ${verdict}`);
  return verdict === "impossible" ? "the history of the container has no sequential order" : undefined;
};
