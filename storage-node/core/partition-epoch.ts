import { type HybridTimestamp, TIMESTAMP_ZERO } from "../../common/hybrid-clock.ts";
import type { Configuration, Member } from "../wire.ts";

/**
 * What one device knows of one partition's members (PROTOCOL section 8), as pure functions.
 *
 *     stable (even epoch) ──configure──▶ joint (odd epoch) ──seal──▶ sealed ──configure──▶ stable, with the new members
 *       ▲                                   │                                                or the old ones: the move was given up
 *       └───────────────────────────────────┘
 *
 * Only configurations that were decided are adopted: that which follows an epoch is written, on condition that nobody wrote another one, under a
 * name of the partition itself (`configurationName`), and that write is the vote (`proxy/core/partition-move.ts`). So no two differ for
 * one epoch, whoever moves the partition, and adopting needs no vote: a device takes any that is newer than its own.
 */
export type EpochState = {
  readonly configuration: Configuration;
  /** [M3]: it answers nobody any more in this epoch. */
  readonly isSealed: boolean;
  /** The `since` of the membership for which it has caught up; −1 where it never was a member. */
  readonly caughtUp: number;
  /** [A3]: of what is at or below it this device cannot say that it never accepted it: it was no member then. */
  readonly fateFloor: HybridTimestamp;
};

export type EpochEvent =
  | { readonly kind: "configure"; readonly configuration: Configuration }
  | { readonly kind: "seal"; readonly epoch: number }
  /** [M2]: everything is here that R of the old members had after W of them had adopted `epoch`. */
  | { readonly kind: "catch-up"; readonly epoch: number };

/** The partition as it was before it was ever moved. */
export const firstConfiguration = (ids: readonly string[]): Configuration => ({
  epoch: 0,
  old: ids.map((id) => ({ id, since: 0 })),
  next: undefined,
  floor: TIMESTAMP_ZERO,
});

/** What a device begins with. */
export const firstState = (self: string, configuration: Configuration): EpochState => ({
  configuration,
  isSealed: false,
  caughtUp: memberOf(configuration.old, self) === undefined ? -1 : 0,
  fateFloor: TIMESTAMP_ZERO,
});

const memberOf = (members: readonly Member[] | undefined, id: string): Member | undefined =>
  members?.find((member) => member.id === id);

/** Since when a device is a member without a break; undefined where it is none. */
export const sinceOf = ({ old, next }: Configuration, id: string): number | undefined =>
  (memberOf(old, id) ?? memberOf(next, id))?.since;

/** All who are told of writes: the old members first, then who is to come. */
export const membersOf = ({ old, next }: Configuration): readonly Member[] =>
  next === undefined ? old : [...old, ...next.filter(({ id }) => memberOf(old, id) === undefined)];

/** Whether a device is a present member and has what the others have. */
export const isMember = ({ caughtUp, configuration }: EpochState, self: string): boolean =>
  memberOf(configuration.old, self)?.since === caughtUp;

/**
 * Whether a configuration makes a device one that is to come, and the device has not heard of it: nobody has counted on what it holds since it left, if it
 * ever was a member. One that is a member already is none that comes, whatever it forgot.
 */
export const arrives = ({ caughtUp, configuration }: EpochState, self: string, told: Configuration): boolean => {
  const since = memberOf(told.next, self)?.since;
  const isMember = memberOf(told.old, self) !== undefined;
  return told.epoch > configuration.epoch && since !== undefined && !isMember && since !== caughtUp;
};

/** The state after an event; the same one where it changes nothing. */
export const step = (state: EpochState, self: string, event: EpochEvent): EpochState => {
  const { configuration } = state;
  switch (event.kind) {
    case "configure": {
      if (event.configuration.epoch <= configuration.epoch) return state;
      const since = memberOf(event.configuration.old, self)?.since;
      const isNew = since !== undefined && since !== memberOf(configuration.old, self)?.since;
      return {
        ...state,
        configuration: event.configuration,
        isSealed: false,
        fateFloor: isNew ? event.configuration.floor : state.fateFloor,
      };
    }
    case "seal":
      return event.epoch === configuration.epoch && !state.isSealed ? { ...state, isSealed: true } : state;
    case "catch-up": {
      const since = sinceOf(configuration, self);
      if (event.epoch !== configuration.epoch || since === undefined || since === state.caughtUp) return state;
      return { ...state, caughtUp: since };
    }
  }
};

/** What a message wants of a replica: to be kept (ACCEPT, ROW), or a vote on what is kept (PREPARE, READ, LIST). */
export type EpochUse = "store" | "vote";

export type EpochAdmission =
  | "serve"
  /** The message's epoch is over: who sent it is told the configuration. */
  | "behind"
  /** The message's epoch has not come here: who sent it tells the configuration. */
  | "ahead"
  | "sealed"
  | "joining"
  | "stranger";

/**
 * What becomes of a message of an epoch. Who is only to come keeps what it is given from the first moment on: it has no say in what was
 * promised or is read, which is for the old members alone, and what it holds it has when it has caught up ([M2]).
 *
 * @param isOfMove it is about the configuration itself, for which the sealing makes room
 */
export const admit = (
  { caughtUp, configuration, isSealed }: EpochState,
  self: string,
  epoch: number,
  use: EpochUse,
  isOfMove: boolean,
): EpochAdmission => {
  if (epoch < configuration.epoch) return "behind";
  if (epoch > configuration.epoch) return "ahead";
  if (isSealed && !isOfMove) return "sealed";
  const own = memberOf(configuration.old, self);
  if (own !== undefined) return caughtUp === own.since ? "serve" : "joining";
  return use === "store" && memberOf(configuration.next, self) !== undefined ? "serve" : "stranger";
};

/** What another member said of a partition before this device pulled everything from it. */
export type EpochWitness = {
  readonly id: string;
  readonly epoch: number;
  readonly isVoting: boolean;
  /** Everything that it has was pulled after it said so. */
  readonly isPulled: boolean;
};

/**
 * [M2]: whether a device that is to become a member has everything. W of the old members must have adopted the epoch before it pulls from R
 * of them: else one that adopted it may lose its disk and, having forgotten that, help the others to a write of the epoch before.
 */
export const hasCaughtUp = (
  { epoch, old }: Configuration,
  self: string,
  witnesses: readonly EpochWitness[],
): boolean => {
  const others = witnesses.filter(({ id, ...said }) => said.epoch === epoch && memberOf(old, id) !== undefined);
  const writeQuorum = Math.floor(old.length / 2) + 1;
  const readQuorum = old.length - writeQuorum + 1;
  const adopters = others.length + (memberOf(old, self) === undefined ? 0 : 1);
  const pulled = others.filter(({ isPulled }) => isPulled);
  // More than all others have exists nowhere.
  const isWhole = pulled.length >= old.filter(({ id }) => id !== self).length;
  return isWhole || (adopters >= writeQuorum && pulled.filter(({ isVoting }) => isVoting).length >= readQuorum);
};
