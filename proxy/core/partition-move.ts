import { type Incarnation, maxTimestamp, NO_INCARNATION } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import {
  type Configuration,
  decodeConfiguration,
  encodeConfiguration,
  type Member,
  type Register,
} from "../../storage-node/wire.ts";
import type { Proposed, WriteMode, WriteOutcome, WriteRecord } from "./register-write.ts";

/**
 * How a partition comes to other members (PROTOCOL section 8), one at a time, as a machine in the form of a generator (see `script.ts`).
 *
 *     stable ──decide the joint one──▶ told to W of the old ──▶ the newcomer has caught up ──▶ seal W of the old ──decide──▶ stable
 *        ▲                               │                        (it pulls by itself [M2])     [M3]                           │
 *        └──── decide: the old ones ─────┘ where the target is another one by now                                              │
 *        └─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
 *
 * What follows an epoch is decided by a conditional write of a name of the partition itself: its base must be the configuration that is to be
 * replaced, so that of two movers one finds what the other wrote, and goes on with that. A vote of each device, once for each epoch, would be
 * less, and would not do: with a third device away two movers with different targets have one vote each, for ever. The register has rounds for
 * that, and is what the rules about lost disks and restarts are about already. Nobody takes a configuration that was not decided.
 *
 * A mover keeps nothing: one that died between any two steps is followed by one that asks.
 */
export type MoveScript<S, T> = Generator<MoveEffect<S>, T, MoveAnswer>;

export type MoveEffect<S> =
  | { readonly kind: "write"; readonly set: S; readonly mode: WriteMode; readonly incarnation: Incarnation }
  | { readonly kind: "confirm"; readonly set: S; readonly version: Register["version"]; readonly isVoid: false }
  /** The newest configuration that the mover has heard of. */
  | { readonly kind: "known" }
  /** Tells devices a configuration that was decided; who has it then. */
  | { readonly kind: "configure"; readonly configuration: Configuration; readonly ids: readonly string[] }
  /** Which of the devices are in this epoch and have everything. */
  | { readonly kind: "caught-up"; readonly configuration: Configuration; readonly ids: readonly string[] }
  /** Which of the devices answer nothing more in this epoch, and the highest timestamp that each of them knows. */
  | { readonly kind: "seal"; readonly configuration: Configuration; readonly ids: readonly string[] };

export type MoveAnswer =
  | WriteOutcome
  | Configuration
  | { readonly devices: readonly { readonly id: string; readonly highest?: HybridTimestamp }[] }
  | undefined;

export type MoveOutcome =
  /** The partition has the members that it should have, and enough of them know. */
  | "done"
  /** The newcomer is copying. */
  | "copying"
  /** Too few devices answer: to be tried again. */
  | "unavailable";

/** Steps of one call; a mover that is overtaken by others that often comes again later. */
const STEP_LIMIT = 40;
const ATTEMPT_LIMIT = 10;

const idsOf = (members: readonly Member[] | undefined): readonly string[] => (members ?? []).map(({ id }) => id);

const allOf = (...configurations: readonly Configuration[]): readonly string[] => [
  ...new Set(configurations.flatMap(({ next, old }) => [...idsOf(old), ...idsOf(next)])),
];

const writeQuorumOf = (members: readonly Member[]): number => Math.floor(members.length / 2) + 1;

/** [M6]: the next joint configuration on the way to a target, undefined when it is reached. Who leaves is replaced in place. */
export const nextJoint = (
  { epoch, floor, old }: Configuration,
  target: readonly string[],
): Configuration | undefined => {
  const leaving = old.find(({ id }) => !target.includes(id));
  const entering = target.find((id) => !old.some((member) => member.id === id));
  if (leaving === undefined && entering === undefined) return undefined;
  const entered = entering === undefined ? [] : [{ id: entering, since: epoch + 1 }];
  const next =
    leaving === undefined ? [...old, ...entered] : old.flatMap((member) => (member === leaving ? entered : [member]));
  return { epoch: epoch + 1, old, next, floor };
};

/** Whether a joint configuration leads towards the target: else it is given up. */
const leadsTo = ({ next, old }: Configuration, target: readonly string[]): boolean => {
  const [before, after] = [idsOf(old), idsOf(next)];
  return (
    after.every((id) => before.includes(id) || target.includes(id)) &&
    before.every((id) => after.includes(id) || !target.includes(id))
  );
};

/**
 * Brings a partition to its target, or some way towards it.
 *
 * @param set the name of its configuration (`configurationName`)
 * @param nextStep the way
 */
export function* movePartition<S>(
  set: S,
  target: readonly string[],
  nextStep: typeof nextJoint = nextJoint,
): MoveScript<S, MoveOutcome> {
  for (let step = 0; step < STEP_LIMIT; step++) {
    const configuration = yield* known<S>();
    const { epoch, next, old } = configuration;
    const told = yield* asked<S>({ kind: "configure", configuration, ids: allOf(configuration) });
    // Somebody has a newer one.
    if ((yield* known<S>()).epoch > epoch) continue;
    if (countIn(told, old) < writeQuorumOf(old)) return "unavailable";
    let following = next === undefined ? nextStep(configuration, target) : givenUp(configuration);
    if (following === undefined) return "done";
    if (next !== undefined && leadsTo(configuration, target)) {
      const newcomers = idsOf(next).filter((id) => !idsOf(old).includes(id));
      const whole = yield* asked<S>({ kind: "caught-up", configuration, ids: newcomers });
      if (whole.length < newcomers.length) return "copying";
      const sealed = yield* asked<S>({ kind: "seal", configuration, ids: idsOf(old) });
      if (countIn(sealed, old) < writeQuorumOf(old)) {
        if ((yield* known<S>()).epoch > epoch) continue;
        return "unavailable";
      }
      following = completed(
        configuration,
        next,
        sealed.map(({ highest }) => highest),
      );
    }
    const decided = yield* decide(set, configuration, following);
    if (decided === undefined) return "unavailable";
    yield* asked<S>({ kind: "configure", configuration: decided, ids: allOf(configuration, decided) });
  }
  return "unavailable";
}

/**
 * [B7]: finishes a configuration that a mover left accepted, as the next mover would: else it lies unconfirmed with some members for ever, and those whose
 * floor is above it never take it over. False where too few devices answer.
 */
export function* finishConfiguration<S>(set: S, { ballot, metadata, version }: Register): MoveScript<S, boolean> {
  const finished = yield* written(set, { kind: "finish", version, ballot, record: { ...NO_RECORD, metadata } });
  if (finished.kind !== "established") return finished.kind !== "unknown";
  yield { kind: "confirm", set, version, isVoid: false };
  const configuration = decodeConfiguration(metadata);
  yield* asked<S>({ kind: "configure", configuration, ids: allOf(configuration) });
  return true;
}

/** Back to the old members, who have everything: nothing needs to be sealed. */
const givenUp = ({ epoch, floor, old }: Configuration): Configuration => ({
  epoch: epoch + 1,
  old,
  next: undefined,
  floor,
});

const completed = (
  { epoch, floor }: Configuration,
  next: readonly Member[],
  highest: readonly (HybridTimestamp | undefined)[],
): Configuration => ({
  epoch: epoch + 1,
  old: next,
  next: undefined,
  floor: highest.reduce<HybridTimestamp>((most, one) => (one === undefined ? most : maxTimestamp(most, one)), floor),
});

const countIn = (devices: readonly { readonly id: string }[], members: readonly Member[]): number =>
  devices.filter(({ id }) => members.some((member) => member.id === id)).length;

/** What follows `from`: `following`, or what somebody else decided before. Undefined where nothing can be said. */
function* decide<S>(set: S, from: Configuration, following: Configuration): MoveScript<S, Configuration | undefined> {
  let earlier: Proposed | undefined;
  for (let attempt = 0; attempt < ATTEMPT_LIMIT; attempt++) {
    const outcome = yield* written(set, {
      kind: "conditional",
      earlier,
      decide: (base) => (epochIn(base) === from.epoch ? recordOf(following) : "stop"),
    });
    earlier = undefined;
    switch (outcome.kind) {
      case "established":
        yield { kind: "confirm", set, version: outcome.version, isVoid: false };
        return following;
      case "stopped":
        // What it is about is decided, since a base is confirmed; one that is older was read by nobody who is told of `from`.
        return outcome.base === undefined ? undefined : decodeConfiguration(outcome.base.metadata);
      case "unfinished": {
        const { ballot, metadata, version } = outcome.base;
        const record: WriteRecord = { ...NO_RECORD, metadata };
        const finished = yield* written(set, { kind: "finish", version, ballot, record });
        if (finished.kind === "unknown") return undefined;
        if (finished.kind === "established") yield { kind: "confirm", set, version, isVoid: false };
        earlier = outcome.own;
        continue;
      }
      case "outdated":
      case "inspected":
      case "superseded":
      case "no-space":
      case "unknown":
        return undefined;
    }
  }
  return undefined;
}

const NO_RECORD = {
  isTombstone: false,
  bodyLength: 0,
  metadata: new Uint8Array(),
  body: "none",
  bodyVersion: undefined,
} as const;

const recordOf = (configuration: Configuration): WriteRecord => ({
  ...NO_RECORD,
  metadata: encodeConfiguration(configuration),
});

/** Where nothing was ever written the members are those of the ring. */
const epochIn = (base: Register | undefined): number =>
  base === undefined ? 0 : decodeConfiguration(base.metadata).epoch;

const misdriven = (): Error => new Error("a move was resumed with an answer to something else");

function* written<S>(set: S, mode: WriteMode): MoveScript<S, WriteOutcome> {
  const answer = yield { kind: "write", set, mode, incarnation: NO_INCARNATION };
  if (answer === undefined || !("kind" in answer)) throw misdriven();
  return answer;
}

function* known<S>(): MoveScript<S, Configuration> {
  const answer = yield { kind: "known" };
  if (answer === undefined || !("epoch" in answer)) throw misdriven();
  return answer;
}

function* asked<S>(
  effect: Extract<MoveEffect<S>, { readonly ids: readonly string[] }>,
): MoveScript<S, readonly { readonly id: string; readonly highest?: HybridTimestamp }[]> {
  const answer = yield effect;
  if (answer === undefined || !("devices" in answer)) throw misdriven();
  return answer.devices;
}
