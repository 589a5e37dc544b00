import { TIMESTAMP_ZERO, timestampAt } from "../../../common/hybrid-clock.ts";
import { configurationName, type Name } from "../../../storage-node/wire.ts";
import {
  finishConfiguration,
  type MoveAnswer,
  type MoveEffect,
  type MoveOutcome,
  movePartition,
  type MoveScript,
  nextJoint,
} from "../partition-move.ts";
import { noteDecided, type SimulatedProxy } from "./simulated-proxy.ts";
import { idOf, indexOf, membersIn, type World } from "./world.ts";

type Space = Name["space"];

/** Does what a mover's script asks for. A mover is a proxy that moves a partition: it dies as one, between any two messages. */
const performMove = async (
  world: World,
  proxy: SimulatedProxy,
  space: Space,
  effect: MoveEffect<Name>,
): Promise<MoveAnswer> => {
  const { mutation } = world;
  switch (effect.kind) {
    case "write": {
      const { mode } = effect;
      const isBlind = mutation === "a configuration is written without a condition" && mode.kind === "conditional";
      const record = isBlind ? mode.decide(undefined, "" as never, []) : "stop";
      // Whoever moves it first from the first epoch on does not look either.
      if (record !== "stop") return proxy.writeAs(effect.set, { kind: "plain", record }, effect.incarnation);
      return proxy.writeAs(effect.set, mode, effect.incarnation);
    }
    case "confirm":
      proxy.confirm(effect.set, effect.version, false);
      return undefined;
    case "known":
      return proxy.known(space);
    case "configure":
    case "caught-up":
    case "seal":
      return { devices: await askAll(world, proxy, space, effect) };
  }
};

type Asking = Extract<MoveEffect<Name>, { readonly ids: readonly string[] }>;
type Answered = { readonly id: string; readonly highest?: ReturnType<typeof timestampAt> };

const askAll = async (
  world: World,
  proxy: SimulatedProxy,
  space: Space,
  { configuration, ids, kind }: Asking,
): Promise<readonly Answered[]> => {
  const { epoch } = configuration;
  noteDecided(world, space, configuration);
  const asked = ids.map(async (id): Promise<Answered | undefined> => {
    const replica = world.replicas[indexOf(id)];
    if (replica === undefined) throw new Error("there is no such replica");
    switch (kind) {
      case "configure": {
        const has = await proxy.askOfMove(replica, kind, space, (it, place) => it.configure(place, configuration));
        if (has !== undefined) proxy.learn(space, has);
        return has?.epoch === epoch ? { id } : undefined;
      }
      case "caught-up": {
        const is = await proxy.askOfMove(
          replica,
          kind,
          space,
          ({ epochs }, place) => epochs.configurationOf(place).epoch === epoch && epochs.hasCaughtUp(place),
        );
        return is === true ? { id } : undefined;
      }
      case "seal": {
        if (world.mutation === "nobody is sealed before the members change [M3]")
          return { id, highest: timestampAt(world.queue.nowMs() + 30) };
        const highest = await proxy.askOfMove(replica, kind, space, (it, place) => it.seal(place, epoch));
        if (highest === undefined) return undefined;
        return { id, highest: world.mutation === "a partition has no floor [M5]" ? TIMESTAMP_ZERO : highest };
      }
    }
  });
  const answered = await Promise.all(asked);
  return answered.filter((one) => one !== undefined);
};

const allAtOnce: typeof nextJoint = (configuration, target) => {
  const { epoch, old } = configuration;
  const next = target.map((id) => old.find((member) => member.id === id) ?? { id, since: epoch + 1 });
  return nextJoint(configuration, target) === undefined ? undefined : { ...configuration, epoch: epoch + 1, next };
};

/** One run of a mover, until it is done or has to wait. It never ends where the proxy dies meanwhile. */
export const moveOnce = async (
  world: World,
  proxy: SimulatedProxy,
  space: Space,
  target: readonly string[],
): Promise<MoveOutcome> => {
  const isAtOnce = world.mutation === "all members change at once [M6]";
  const script = movePartition(configurationName(space, 0), target, isAtOnce ? allAtOnce : nextJoint);
  const outcome = await performAll(world, proxy, space, script);
  if (outcome === "done") await releaseLeft(world, proxy, space);
  return outcome;
};

/** Who is no member gives back what it holds, as `proxy/object-service/move-io.ts` asks for it. Those that do not answer keep it until they come again, or for ever. */
const releaseLeft = async (world: World, proxy: SimulatedProxy, space: Space): Promise<void> => {
  const configuration = proxy.known(space);
  for (const replica of world.replicas) {
    if (configuration.old.some(({ id }) => id === idOf(replica.index))) continue;
    const known = await proxy.askOfMove(replica, "configure", space, (it, place) => it.configure(place, configuration));
    if (proxy.isDead) await new Promise(() => {});
    if (known?.epoch !== configuration.epoch) continue;
    const count = await proxy.askOfMove(replica, "release", space, (it, place) => it.release(place, known.epoch));
    if (count !== undefined && count > 0) world.note?.("what a former member holds is released");
    if (proxy.isDead) await new Promise(() => {});
  }
};

/** [B7]: finishes the configurations that are left at the members of a ring. */
export const settleConfigurations = async (world: World, proxy: SimulatedProxy, space: Space): Promise<void> => {
  const name = configurationName(space, 0);
  for (const { replica } of membersIn(world, name)) {
    const left = (await replica.held(name))?.register;
    if (left?.state === "accepted") await performAll(world, proxy, space, finishConfiguration(name, left));
  }
};

const performAll = async <T>(
  world: World,
  proxy: SimulatedProxy,
  space: Space,
  script: MoveScript<Name, T>,
): Promise<T> => {
  let step = script.next();
  while (step.done !== true) {
    const effect: MoveEffect<Name> = step.value;
    const answer = await performMove(world, proxy, space, effect);
    if (proxy.isDead) await new Promise(() => {});
    step = script.next(answer);
  }
  return step.value;
};
