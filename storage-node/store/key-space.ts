import { RingsteadError } from "../../common/errors.ts";
import type { Name, Space } from "../wire.ts";
import {
  BASE_RINGS_KEY,
  CEILING_KEY,
  countersKey,
  FOUNDERS_KEY,
  isEpochKey,
  isMarkKey,
  NEWCOMER_KEY,
  registerKey,
  rowKey,
} from "./keys.ts";
import { isKeptKey } from "./kept-keys.ts";

const KIND_OFFSET = 4;
const PATH_OFFSET = 5;
const SLASH = 0x2f;

const SPACES = ["object", "container", "account"] as const satisfies readonly Space[];
const nameIn = (space: Space): Name => ({ space, hash32: 0, path: "" });
const kindOf = (key: Uint8Array): number => key[KIND_OFFSET] ?? 0;

const REGISTER_KINDS: ReadonlyMap<number, Space> = new Map(
  SPACES.map((space) => [kindOf(registerKey(nameIn(space))), space]),
);
/** Rows and counters have one kind for containers and accounts: how deep their owner's path is tells them apart. */
const ROW_KINDS: ReadonlySet<number> = new Set([
  kindOf(countersKey(nameIn("container"))),
  kindOf(rowKey(nameIn("container"), "", false)),
  kindOf(rowKey(nameIn("container"), "", true)),
]);

const OWN_KEYS: readonly Uint8Array[] = [BASE_RINGS_KEY, CEILING_KEY, FOUNDERS_KEY, NEWCOMER_KEY];
const REPLICATED_ROW_KINDS: ReadonlySet<number> = new Set([
  kindOf(rowKey(nameIn("container"), "", false)),
  kindOf(rowKey(nameIn("container"), "", true)),
]);

/**
 * The ring that places a key: that of its name, and for rows that of their owner. Undefined for what belongs to the device itself. Throws
 * RingsteadError `unknown-key-kind`, so that a kind added later is never left behind in silence.
 */
export const spaceOfKey = (key: Uint8Array): Space | undefined => {
  if (OWN_KEYS.some((own) => Buffer.compare(key, own) === 0) || isEpochKey(key) || isMarkKey(key) || isKeptKey(key))
    return undefined;
  const kind = kindOf(key);
  const space = REGISTER_KINDS.get(kind);
  if (space !== undefined) return space;
  if (!ROW_KINDS.has(kind))
    throw new RingsteadError("unknown-key-kind", `a key has the unknown kind ${kind}`, { kind });
  return ownersSpace(key);
};

/** That of the container or account whose path a row's or counters' key has. */
const ownersSpace = (key: Uint8Array): Space => {
  let slashes = 0;
  for (let index = PATH_OFFSET; index < key.length && key[index] !== 0; index++) if (key[index] === SLASH) slashes += 1;
  return slashes > 1 ? "container" : "account";
};

/** True of the key of a register. */
export const isRegisterKey = (key: Uint8Array): boolean => REGISTER_KINDS.has(kindOf(key));

/** The ring of a register or a row; undefined for all that replicas do not have in common, counters among them. */
export const spaceOfReplicated = (key: Uint8Array): Space | undefined =>
  REGISTER_KINDS.get(kindOf(key)) ?? (REPLICATED_ROW_KINDS.has(kindOf(key)) ? ownersSpace(key) : undefined);
