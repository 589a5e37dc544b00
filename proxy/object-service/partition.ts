import { RingsteadError } from "../../common/errors.ts";
import {
  type Configuration,
  HeaderReader,
  type Name,
  type PartitionPlace,
  unpackConfiguration,
} from "../../storage-node/wire.ts";
import { Quorum } from "../core/quorum.ts";
import { groupByNode, type ReadOrder, readOrderOf, type Replica, type ReplicaGroup } from "./replicas.ts";

const TELL_TIMEOUT_MS = 2000;

/** Who keeps a partition in one epoch: made once for each. All answers of one phase come from one of these ([M1]). */
export type Members = {
  readonly configuration: Configuration;
  /** That of the configuration: every message names it. */
  readonly epoch: number;
  readonly quorum: Quorum;
  /** All who are told of writes: the old members first, as the quorum numbers them. */
  readonly replicas: readonly Replica[];
  readonly groups: readonly ReplicaGroup[];
  /** Those who promise and are read: the old members. */
  readonly voters: readonly Replica[];
  readonly voterGroups: readonly ReplicaGroup[];
  /** The voters, each of them first once: whom a read asks, and in what order. */
  readonly orders: readonly ReadOrder[];
};

/** Finds the replica on a device, named as `node/device`. Errors (thrown): "ring-names-unknown-node". */
export type ReplicaOf = (id: string) => Replica;

/** Errors (thrown): those of `replicaOf`. */
const membersOf = (configuration: Configuration, replicaOf: ReplicaOf): Members => {
  const { epoch, next, old } = configuration;
  const voters = old.map(({ id }) => replicaOf(id));
  const isOld = (id: string): boolean => old.some((member) => member.id === id);
  const entering = (next ?? []).filter(({ id }) => !isOld(id));
  const voterGroups = groupByNode(voters);
  const orders = voters.map((_, turn) => readOrderOf([...voters.slice(turn), ...voters.slice(0, turn)]));
  const shared = { configuration, epoch, voters, voterGroups, orders };
  if (next === undefined)
    return { ...shared, quorum: Quorum.stable(voters.length), replicas: voters, groups: voterGroups };
  const isNext = [...old, ...entering].map(({ id }) => next.some((member) => member.id === id));
  const replicas = [...voters, ...entering.map(({ id }) => replicaOf(id))];
  return { ...shared, quorum: Quorum.joint(voters.length, isNext), replicas, groups: groupByNode(replicas) };
};

/** Errors (thrown): those of `replicaOf`. */
const requireKnown = ({ next = [], old }: Configuration, replicaOf: ReplicaOf): void => {
  for (const { id } of old) replicaOf(id);
  for (const { id } of next) replicaOf(id);
};

/** What an answer's error says of the partition that was asked for. */
export type EpochWord =
  /** It has other members by now, and they are known. */
  | "moved"
  /** The replica has not heard of the epoch: it is to be told. */
  | "untold"
  /** Its members change in a moment, or the replica has yet to catch up. */
  | "changing"
  /** Nothing. */
  | "none";

/**
 * One partition as this process knows it: in epoch 0 its members are those of the ring at which it was never moved yet; replicas tell of later
 * epochs, and are told of them ([M1]).
 */
export class Partition {
  readonly place: PartitionPlace;
  readonly #replicaOf: ReplicaOf;
  readonly #onLearn: (configuration: Configuration) => void;
  /** Who keeps it. Of most partitions a process only hears, so that the rest is made for those that are asked for. */
  #configuration: Configuration;
  #members: Members | undefined;

  /** Errors (thrown): those of `replicaOf`. */
  constructor(
    place: PartitionPlace,
    first: Configuration,
    replicaOf: ReplicaOf,
    onLearn: (configuration: Configuration) => void = () => {},
  ) {
    this.place = place;
    this.#replicaOf = replicaOf;
    this.#onLearn = onLearn;
    requireKnown(first, replicaOf);
    this.#configuration = first;
  }

  /** The newest one that this process has heard of. */
  get configuration(): Configuration {
    return this.#configuration;
  }

  /** Another object in each epoch. */
  get members(): Members {
    this.#members ??= membersOf(this.#configuration, this.#replicaOf);
    return this.#members;
  }

  /** A configuration that was decided: a newer one is what counts from now on. Errors (thrown): "ring-names-unknown-node". */
  learn(configuration: Configuration): void {
    if (configuration.epoch <= this.#configuration.epoch) return;
    requireKnown(configuration, this.#replicaOf);
    this.#configuration = configuration;
    this.#members = undefined;
    this.#onLearn(configuration);
  }

  /** What an error means that a member gave which was asked as one of `asked`. */
  meet(error: RingsteadError, asked: Members): EpochWord {
    switch (error.code) {
      case "epoch-behind":
        try {
          this.learn(configurationIn(error));
        } catch (thrown) {
          if (!(thrown instanceof RingsteadError)) throw thrown;
        }
        return this.members === asked ? "none" : "moved";
      case "epoch-ahead":
        return "untold";
      case "epoch-sealed":
        return "changing";
      case "device-joining":
        // A partition that was never moved waits for nobody's move.
        return asked.epoch === 0 ? "none" : "changing";
      default:
        return "none";
    }
  }

  /** Tells a replica what `asked` are the members of, then goes on, whatever came of it. */
  tell(replica: Replica, { configuration }: Members, then: () => void): void {
    const has = (known: Configuration): void => this.learn(known);
    replica.client
      .configure(this.place, configuration, TELL_TIMEOUT_MS)
      .then(has)
      .catch((error: unknown) => {
        if (!(error instanceof RingsteadError)) throw error;
        replica.heard(error);
      })
      .finally(then);
  }
}

/** The replicas of one name. `handOffs`: under policy `available`, in the order in which they stand in. */
export type ReplicaSet = {
  readonly name: Name;
  readonly partition: Partition;
  readonly handOffs?: readonly Replica[];
};

/** What "epoch-behind" says of the members. Errors (thrown): "bad-message". */
const configurationIn = ({ fields }: RingsteadError): Configuration => {
  const packed = fields["configuration"];
  if (!Array.isArray(packed)) throw new RingsteadError("bad-message", "malformed message: configuration");
  return unpackConfiguration(new HeaderReader(packed));
};
