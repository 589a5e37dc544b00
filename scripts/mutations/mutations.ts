/** A mistake that is made in a copy of the sources: in `file` the one place that reads `from` becomes `to`. */
export type Mutation = {
  /** The rule of PROTOCOL.md that it breaks, in words. */
  readonly title: string;
  readonly file: string;
  readonly from: string;
  readonly to: string;
} & (
  | {
      /** The simulation that has to find it, and the first of the seeds that it looks at: some before the one that shows it. */
      readonly simulation: Simulation;
      readonly firstSeed: number;
    }
  /** What no seed shows soon enough is played step by step: the files of tests that have to find it. */
  | { readonly simulation: "played"; readonly tests: readonly string[] }
);

type Simulation = VitestSimulation | "long-life";
/** Those whose seeds a test of vitest lives through. */
type VitestSimulation = "register" | "containers" | "lost-disks" | "hand-offs";

/** Lives through seeds by itself, and prints what came of them. */
export const LONG_LIFE_SEEDS = "storage-node/scenarios/long-life-seeds.ts";

export const SIMULATION_FILES: Readonly<Record<VitestSimulation, string>> = {
  register: "proxy/core/register.sim.test.ts",
  containers: "proxy/core/containers-simulation/containers.sim.test.ts",
  "lost-disks": "proxy/core/containers-simulation/lost-disks.sim.test.ts",
  "hand-offs": "storage-node/daemons/hand-off-sender.sim.test.ts",
};

/** What a replica that lost its memory may install, and when it votes. */
const PLAYED_VOTES: readonly string[] = [
  "storage-node/core/repair.test.ts",
  "storage-node/votes.test.ts",
  "storage-node/device-replica.test.ts",
];

/** What becomes of deletions that are forgotten, and of partitions that are cleared. */
const PLAYED_REPAIR: readonly string[] = [
  "storage-node/repair/kept-entries.test.ts",
  "storage-node/partition-arrivals.test.ts",
];

/** What is kept for absent replicas. */
const PLAYED_HAND_OFFS: readonly string[] = ["proxy/core/object-script.test.ts", "storage-node/hand-offs.test.ts"];

/** Which of a file's tests look at seeds. */
export const SEEDED_TEST: Readonly<Record<VitestSimulation, string>> = {
  register: "a name is a linearizable register",
  containers: "objects and containers together",
  "lost-disks": "replicas that lose their disk",
  "hand-offs": "what hand-offs keep goes home",
};

/** Seeds in which every mistake is found. */
export const SEEDS_LIMIT = 2000;

const REGISTER_WRITE = "proxy/core/register-write.ts";
const REGISTER_READ = "proxy/core/register-read.ts";
const REPLICA = "storage-node/device-replica.ts";
const REGISTER = "storage-node/core/register.ts";
const REPAIR = "storage-node/core/repair.ts";

export const MUTATIONS: readonly Mutation[] = [
  {
    title: "a write is acknowledged by W−1 replicas",
    file: REGISTER_WRITE,
    from: "if (state.accepted < this.#writeQuorum) return undefined;",
    to: "if (state.accepted < this.#writeQuorum - 1) return undefined;",
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "a version that was read is not written back [R2]",
    file: REGISTER_READ,
    from: 'kind: isSettled || equal >= writeQuorum ? "settled" : "unfinished"',
    to: 'kind: isSettled || equal >= 1 ? "settled" : "unfinished"',
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "a promise is forgotten at a restart [D2]",
    file: REPLICA,
    from: "this.#floor = this.#ceiling;",
    to: "this.#floor = TIMESTAMP_ZERO;",
    simulation: "register",
    firstSeed: 250,
  },
  {
    title: "an ACCEPT below a promise is taken [A1]",
    file: REGISTER,
    from: `    timestampIn(ballot) <= floor ||
    (memory?.promise !== undefined && ballot < memory.promise) ||
    (stored !== undefined && ballot < stored.ballot)`,
    to: `    timestampIn(ballot) <= floor ||
    (stored !== undefined && ballot < stored.ballot)`,
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "an older ballot replaces a newer one [A1]",
    file: REGISTER,
    from: `    (memory?.promise !== undefined && ballot < memory.promise) ||
    (stored !== undefined && ballot < stored.ballot)
  ) {
    return { kind: "refused", seen: highestSeen(stored, memory, ballot) };
  }
  const isSameVersion`,
    to: `    (memory?.promise !== undefined && ballot < memory.promise)
  ) {
    return { kind: "refused", seen: highestSeen(stored, memory, ballot) };
  }
  const isSameVersion`,
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "a higher ballot that is stored counts as success [A1]",
    file: REGISTER,
    from: '    return { kind: "refused", seen: highestSeen(stored, memory, ballot) };\n  }\n  const isSameVersion',
    to: '    return stored !== undefined && ballot < stored.ballot ? { kind: "repeated" } : { kind: "refused", seen: highestSeen(stored, memory, ballot) };\n  }\n  const isSameVersion',
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "an ACCEPT is answered before its sync [D1]",
    file: REPLICA,
    from: 'await this.engine.apply(mutations);\n    return {\n      kind: "accepted"',
    to: 'void this.engine.apply(mutations);\n    return {\n      kind: "accepted"',
    simulation: "register",
    firstSeed: 650,
  },
  {
    title: "a fate is denied below the floor [A3]",
    file: REGISTER,
    from: 'return timestamp <= floor || (memory !== undefined && timestamp <= memory.floor) ? "unknown" : "never";',
    to: 'return memory !== undefined && timestamp <= memory.floor ? "unknown" : "never";',
    simulation: "register",
    firstSeed: 250,
  },
  {
    title: "a condition is judged on a version that may never take effect [C1]",
    file: REGISTER_WRITE,
    from: 'if (highest !== undefined && highest.state === "accepted" && highest.version !== this.#mode.over)',
    to: "if (highest === null)",
    simulation: "register",
    firstSeed: 1,
  },
  {
    title: "own versions count as without effect where one replica denies them [W2]",
    file: REGISTER_WRITE,
    from: 'promise.fates[index] === "void").length >=\n        this.#readQuorum,',
    to: 'promise.fates[index] === "void").length >=\n        1,',
    simulation: "register",
    firstSeed: 230,
  },
  {
    title: "a promise is given below an earlier one [A2]",
    file: REGISTER,
    from: `    (memory?.promise !== undefined && ballot < memory.promise) ||
    (stored !== undefined && ballot <= stored.ballot)`,
    to: `    (stored !== undefined && ballot <= stored.ballot)`,
    simulation: "register",
    firstSeed: 880,
  },
  {
    title: "the older version of a row wins",
    file: "storage-node/core/row-admission.ts",
    from: "held.version >= row.version",
    to: "held.version === row.version",
    simulation: "containers",
    firstSeed: 1340,
  },
  {
    title: "a row is taken whatever became of its container [B1]",
    file: "storage-node/core/row-admission.ts",
    from: "isPlaced: boolean): Admission => {\n",
    to: 'isPlaced: boolean): Admission => {\n  if (known !== undefined || isPlaced) return "open";\n',
    simulation: "containers",
    firstSeed: 1,
  },
  {
    title: "an emptied device votes at once [M4]",
    file: "storage-node/votes.ts",
    from: "  votesIn(space: Space, hash32: number): boolean {\n    if (this.#newcomer === undefined) return true;",
    to: "  votesIn(space: Space, hash32: number): boolean {\n    if (this.#clock.nowMs() > 0) return true;",
    simulation: "lost-disks",
    firstSeed: 1,
  },
  {
    title: "an emptied device votes after it has read one other [M4]",
    file: REPAIR,
    from: "const readQuorum = readQuorumOf(replicaCount);",
    to: "const readQuorum = 1;",
    simulation: "lost-disks",
    firstSeed: 1,
  },
  {
    title: "repair brings rows without their container's life",
    file: "storage-node/store/keys.ts",
    from: 'const owner = { space, hash32: bytes.readUInt32BE(0), path: bytes.toString("utf8", 5, end) };',
    to: 'const owner = { space, hash32: bytes.readUInt32BE(0), path: bytes.toString("utf8", 5, bytes.indexOf(0, 5)) };',
    simulation: "lost-disks",
    firstSeed: 1,
  },
  {
    title: "a version of open outcome that was pulled is installed whatever was promised [E1]",
    file: REPAIR,
    from: 'if (pulled.state !== "accepted" || !isVoting) return "install";',
    to: 'if (pulled.state !== undefined) return "install";',
    simulation: "played",
    tests: PLAYED_VOTES,
  },
  {
    title: "a settled version is installed only as an ACCEPT would be [E1]",
    file: REPAIR,
    from: 'if (pulled.state !== "accepted" || !isVoting) return "install";',
    to: 'if (!isVoting) return "install";',
    simulation: "long-life",
    firstSeed: 40,
  },
  {
    title: "a device with a hole in its log goes on voting [M4]",
    file: "storage-node/votes.ts",
    from: 'const hasLost = (engine.figures()["quarantinedRanges"] ?? 0) > 0;',
    to: "const hasLost = false;",
    simulation: "long-life",
    firstSeed: 1,
  },
  {
    title: "who votes again takes what is below what it may have promised [M4]",
    file: REPLICA,
    from: `  join({ space, partitionPower, partition }: PartitionPlace): void {
    this.#floor = maxTimestamp(this.#floor, timestampAt(this.#clock.nowMs()));`,
    to: "  join({ space, partitionPower, partition }: PartitionPlace): void {",
    simulation: "played",
    tests: PLAYED_VOTES,
  },
  {
    title: "an emptied device votes while promises that it forgot may bind [M4]",
    file: REPAIR,
    from: "return isSafe || hasNeverVoted ?",
    to: "return isSafe || !isSafe ?",
    simulation: "played",
    tests: PLAYED_VOTES,
  },
  {
    title: "what was not sent to some is forgotten although another one failed [W2]",
    file: REGISTER_WRITE,
    from: `      state.failed === 0 &&
      state.refusedFates.every((fates) => fates.every((fate) => fate === "never"));
    if (areAllNever && state.unsent > 0 && state.isFirst) {
      if (state.refusedFates.length + state.unsent < quorum.memberCount) return undefined;`,
    to: `      state.refusedFates.every((fates) => fates.every((fate) => fate === "never"));
    if (areAllNever && state.unsent > 0 && state.isFirst) {
      if (state.refusedFates.length + state.unsent + state.failed < quorum.memberCount) return undefined;`,
    simulation: "register",
    firstSeed: 2500,
  },
  {
    title: "what a device without votes kept from before a forgotten deletion is taken from it [E6]",
    file: REPLICA,
    from: "if (!isOfVoter) return true;",
    to: "",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "a device votes again with what it kept from before a forgotten deletion [E6]",
    file: "storage-node/daemons/partition-joining.ts",
    from: "if (!canTell || ",
    to: "if (canTell || !canTell || ",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "a device without votes takes over no marks [E6]",
    file: "storage-node/replica-reclaim.ts",
    from: "if (told.registers <= registers && told.rows <= rows) return;",
    to: "if (told.registers <= registers || told.rows >= rows) return;",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "who has forgotten a deletion without having had it is asked once [E2]",
    file: "storage-node/daemons/reclaimer.ts",
    from: 'words[witness] === "forgotten" ? [one] : []',
    to: "words[witness] === undefined ? [one] : []",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "who has not caught up takes no deletion that it takes for forgotten [E2]",
    file: REPLICA,
    from: "    if (!this.votes.votesIn(name.space, name.hash32)) return false;\n    if (!isOfVoter) return true;\n    return isDeletion && (partition === undefined || isMember(partition, this.epochs.self));",
    to: "    return !isOfVoter || isDeletion;",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "what was asked for before a partition was cleared is installed afterwards [E3]",
    file: REPLICA,
    from: "    this.deletions.noteRemoval(place);\n",
    to: "",
    simulation: "played",
    tests: PLAYED_REPAIR,
  },
  {
    title: "a tombstone is reclaimed as soon as it is written [E2]",
    file: REPLICA,
    from: 'await this.engine.apply(mutations);\n    return {\n      kind: "accepted"',
    to: 'const isGone = decision.register.isTombstone && name.space === "object";\n    await this.engine.apply(isGone ? [{ kind: "delete", key }, ...mutations.slice(1)] : mutations);\n    return {\n      kind: "accepted"',
    simulation: "long-life",
    firstSeed: 1,
  },
  {
    title: "a tombstone is reclaimed before all members have it [E2]",
    file: "storage-node/core/reclaim.ts",
    from: 'return isAtOrBelow(asked, mark) ? "forgotten" : "kept";',
    to: 'return isAtOrBelow(asked, mark) ? "forgotten" : "held";',
    simulation: "long-life",
    firstSeed: 480,
  },
  {
    title: "a hand-off drops its copy when one member has it [H6]",
    file: "storage-node/daemons/hand-off-sender.ts",
    from: "if (!members.every(({ id }) => ids.has(id)))",
    to: "if (!members.some(({ id }) => ids.has(id)))",
    simulation: "hand-offs",
    firstSeed: 35,
  },
  {
    title: "a hand-off counts for a condition [H3]",
    file: "proxy/core/hand-off-keep.ts",
    from: '  isAvailable && write === "plain";',
    to: "  isAvailable;",
    simulation: "hand-offs",
    firstSeed: 1,
  },
  {
    title: "strong uses a hand-off [H8]",
    file: "proxy/core/hand-off-keep.ts",
    from: '  isAvailable && write === "plain";',
    to: '  write === "plain";',
    simulation: "hand-offs",
    firstSeed: 1,
  },
  {
    title: "what a hand-off counted for is confirmed by its writer [H4]",
    file: "proxy/core/object-script.ts",
    from: "  if (isWhole) yield* confirm(place.object, version);",
    to: "  yield* confirm(place.object, version);",
    simulation: "played",
    tests: PLAYED_HAND_OFFS,
  },
  {
    title: "a hand-off is asked where a member refused [H2]",
    file: "proxy/core/available-write.ts",
    from: "return this.#isRefused ? this.#anew() : this.#keep(copies.wanting());",
    to: "return this.#keep(copies.wanting());",
    simulation: "hand-offs",
    firstSeed: 40,
  },
  {
    title: "a member takes a copy only as it would an ACCEPT, and says that it has it [H6]",
    file: "storage-node/core/hand-off.ts",
    from: 'return stored.version >= copy.version || lifeIn(stored.ballot) > lifeIn(copy.version) ? "has" : "take";',
    to: 'return "has";',
    simulation: "hand-offs",
    firstSeed: 1,
  },
  {
    title: "a copy from before deletions that were forgotten is taken [H7]",
    file: "storage-node/core/hand-off.ts",
    from: 'return isAtOrBelow(copy.ballot, mark) ? "forgotten" : "take";',
    to: 'return "take";',
    simulation: "played",
    tests: PLAYED_HAND_OFFS,
  },
  {
    title: "an older copy replaces a later one on a hand-off [H1]",
    file: "storage-node/core/hand-off.ts",
    from: "kept === undefined || kept < given;",
    to: "true;",
    simulation: "played",
    tests: PLAYED_HAND_OFFS,
  },
  {
    title: "an object is confirmed before its row is written",
    file: "proxy/core/object-script.ts",
    from: "  const end = yield* placeRow(place.container, incarnationIn(version), place.rowOf(shown));",
    to: "  yield* confirm(place.object, version);\n  const end = yield* placeRow(place.container, incarnationIn(version), place.rowOf(shown));",
    simulation: "long-life",
    firstSeed: 1,
  },
  {
    title: "a row at one replica is enough [B1]",
    file: "proxy/core/row-write.ts",
    from: 'return this.#quorum.suffices(this.#stored) ? this.#done("stored") : undefined;',
    to: 'return this.#done("stored");',
    simulation: "long-life",
    firstSeed: 10,
  },
  {
    title: "an index checkpoint is ahead of its index",
    file: "storage-node/engine/log-device.ts",
    from: "      while (this.#feed.indexedBefore < checkpoint.nextSequence && this.#writer.failure === undefined) {\n        await this.#feed.flush();\n      }\n",
    to: "",
    simulation: "long-life",
    firstSeed: 40,
  },
  {
    title: "a digest keeps what was overwritten",
    file: "storage-node/engine/log-appender.ts",
    from: "if (bucket >= 0) this.#digests.replace(bucket, old?.digest, digest);",
    to: "if (bucket >= 0) this.#digests.replace(bucket, undefined, digest);",
    simulation: "long-life",
    firstSeed: 1,
  },
  {
    title: "the log is not synced [D1]",
    file: "storage-node/engine/segment-store.ts",
    from: 'const file = await this.#disk.open(this.#paths.segment(number), "write-through");',
    to: 'const file = await this.#disk.open(this.#paths.segment(number), "existing");',
    simulation: "long-life",
    firstSeed: 10,
  },
];
