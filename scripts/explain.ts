import { messageOf, RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { millisecondsOf } from "../common/hybrid-clock.ts";
import { type Ballot, type Incarnation, isStoredBallot, timestampIn } from "../common/ballot.ts";
import type { ReplicaReport } from "../storage-node/daemons/scrubber-operations.ts";
import { TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import type { Configuration, Member, Name, Space } from "../storage-node/wire.ts";
import { SHARD_ACCOUNT_PREFIX, shardName } from "../proxy/core/shard-ranges.ts";
import { newestConfiguration } from "./partition-members.ts";
import { InstallationDevices, placeOfId } from "./scrub-devices.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const HELP = `ringstead explain /ACCOUNT[/CONTAINER[/OBJECT]] [--read] [--data DIR] [--json]

Where a name's replicas lie and what each of them has: its version, whether it is confirmed, where its body is, when its device
was last read from end to end, and what is known of damage and healing. --read reads each body to its end.
Exit 0 where a quorum holds one version and nothing is damaged, else 1. ACCOUNT is as in URLs, such as AUTH_….
`;

type Replica = {
  readonly device: string;
  readonly report: ReplicaReport | undefined;
  readonly error: string | undefined;
};

const FIRST_EPOCH: Configuration = { epoch: 0, old: [], next: undefined, floor: TIMESTAMP_ZERO };

/** What `explain --json` prints. */
export type Explanation = {
  readonly name: string;
  readonly space: Space;
  readonly partition: number;
  /** How often its members were to change, by one each time: even where that is over. */
  readonly epoch: number;
  /** Who is to come and to go, in words. */
  readonly way?: string;
  readonly hash: string;
  /** Of a container whose listing was split: up to which name each shard has them, as a path that can be explained, and what is under way. */
  readonly shards?: {
    readonly ranges: readonly { readonly upTo: string; readonly path: string }[];
    readonly change?: { readonly from: readonly string[]; readonly to: readonly string[] };
  };
  readonly replicas: readonly Replica[];
  /** Devices that are no replicas and keep a version for some that were away. */
  readonly keptBy?: readonly { readonly device: string; readonly version: string; readonly isTombstone: boolean }[];
  /** In words. */
  readonly verdict: string;
  readonly isWell: boolean;
};

/** Errors: "usage". */
export const spaceOf = (
  path: string,
): { readonly space: Space; readonly parts: readonly [string, string?, string?] } => {
  const match = /^\/([^/]+)(?:\/([^/]+)(?:\/(.+))?)?$/s.exec(path);
  const [, account = "", container, object] = match ?? [];
  if (account === "")
    throw new RingsteadError("usage", `"${path}" is no /ACCOUNT, /ACCOUNT/CONTAINER or /ACCOUNT/CONTAINER/OBJECT`);
  if (container === undefined) return { space: "account", parts: [account] };
  return object === undefined
    ? { space: "container", parts: [account, container] }
    : { space: "object", parts: [account, container, object] };
};

/** Of the replicas together. */
export const judge = (replicas: readonly Replica[]): { readonly verdict: string; readonly isWell: boolean } => {
  const quorum = Math.floor(replicas.length / 2) + 1;
  const answers = replicas.flatMap(({ device, report }) => (report === undefined ? [] : [{ device, ...report }]));
  const damaged = answers.filter(({ state, body }) => state === "damaged" || body === "damaged" || body === "gone");
  const notVoting = answers.filter(({ isVoting }) => !isVoting);
  const voting = answers.filter(({ isVoting, state }) => isVoting && state !== "damaged");
  const held = new Map<string, number>();
  for (const { version = "nothing" } of voting) held.set(version, (held.get(version) ?? 0) + 1);
  const newest = voting.map(({ ballot }) => ballot ?? "").reduce((one, other) => (one > other ? one : other), "");
  const highest = voting.find(({ ballot = "" }) => ballot === newest);
  const holders = held.get(highest?.version ?? "nothing") ?? 0;
  const words: string[] = [];
  if (answers.length < replicas.length)
    words.push(`${replicas.length - answers.length} of ${replicas.length} replicas cannot be asked`);
  if (notVoting.length > 0)
    words.push(`${notVoting.map(({ device }) => device).join(", ")} does not vote here before it has caught up`);
  if (voting.length < quorum)
    words.push(`fewer than ${quorum} replicas answer: requests for this name get 503 until more do`);
  else if (holders < quorum)
    words.push("no version is at a quorum: the next read, or repair, finishes or supersedes the highest one");
  else if (highest?.version === undefined) words.push("no replica has it: it never was, or is long deleted");
  else if (highest.state === "void") words.push("its last version never took effect: it reads as absent");
  else if (highest.isTombstone === true) words.push("it is deleted");
  else words.push(`${holders} of ${replicas.length} replicas hold its version`);
  const behind = voting.filter(({ version }) => version !== highest?.version);
  if (holders >= quorum && behind.length > 0)
    words.push(`${behind.map(({ device }) => device).join(", ")} has another state and is brought up by repair`);
  if (damaged.length > 0)
    words.push(
      `${damaged.map(({ device }) => device).join(", ")} is damaged: it is served from the others, and healed from them`,
    );
  const isWell = damaged.length === 0 && behind.length === 0 && voting.length === replicas.length && holders >= quorum;
  return { verdict: words.join("; "), isWell };
};

const dateOf = (ms: number): string => new Date(ms).toISOString();

const madeAt = (ballot: string): string =>
  isStoredBallot(ballot) ? `${ballot} (${dateOf(millisecondsOf(timestampIn(ballot satisfies Ballot)))})` : ballot;

const bodyWords: Readonly<Record<NonNullable<ReplicaReport["body"]>, string>> = {
  whole: "reads well to its end",
  damaged: "DAMAGED",
  gone: "GONE",
  unread: "not read (--read reads it)",
};

const replicaLines = ({ device, report, error }: Replica): string[] => {
  if (report === undefined) return [`  ${device}: cannot be asked: ${error ?? ""}`];
  const { state, version, ballot, bodyVersion, bodyKind, bodyLength, body, isTombstone, lastScrubMs, events } = report;
  const vote = report.isVoting ? "" : ", has no vote here yet";
  const lines = [
    `  ${device}: ${state}${isTombstone === true ? ", a deletion" : ""}${report.why === undefined ? "" : ` (${report.why})`}${vote}`,
  ];
  if (version !== undefined) lines.push(`    version      ${madeAt(version)}`);
  if (ballot !== undefined && ballot !== version) lines.push(`    accepted as  ${madeAt(ballot)}`);
  if (bodyVersion !== undefined && bodyVersion !== version) lines.push(`    body of      ${madeAt(bodyVersion)}`);
  if (bodyKind !== undefined && bodyKind !== "none")
    lines.push(
      `    body         ${bodyLength ?? 0} bytes in ${bodyKind === "file" ? "a file of its own" : "the log"}, ${bodyWords[body ?? "unread"]}`,
    );
  lines.push(
    `    last scrub   ${lastScrubMs === undefined ? "never" : `${dateOf(lastScrubMs)}, ${report.lastScrubDamaged ?? 0} damaged on the device`}`,
  );
  for (const event of events) lines.push(`    ${event.at}  ${event.event}: ${event.name}: ${event.detail}`);
  return lines;
};

type ShardsTold = NonNullable<Explanation["shards"]>;

/** As the newest record says that any replica has. */
const shardsIn = (path: string, account: string, replicas: readonly Replica[]): ShardsTold | undefined => {
  const reports = replicas.flatMap(({ report }) => (report?.shards === undefined ? [] : [report]));
  const newest = reports.toSorted((left, right) => ((left.ballot ?? "") < (right.ballot ?? "") ? 1 : -1))[0];
  if (newest?.shards === undefined || newest.isTombstone === true) return undefined;
  const { change, incarnation, index } = newest.shards;
  if (index === undefined && change === undefined) return undefined;
  const container = path.slice(account.length + 2);
  const pathOf = (id: string): string =>
    id === "" ? path : `/${SHARD_ACCOUNT_PREFIX}${account}/${shardName(container, incarnation as Incarnation, id)}`;
  return {
    ranges: (index ?? [{ upTo: "", id: "" }]).map(({ id, upTo }) => ({ upTo, path: pathOf(id) })),
    ...(change === undefined
      ? {}
      : { change: { from: change.from.map(pathOf), to: change.to.map(({ id }) => pathOf(id)) } }),
  };
};

const shardLines = (shards: ShardsTold | undefined): string[] => {
  if (shards === undefined) return [];
  const { change, ranges } = shards;
  return [
    `listed in ${ranges.length} shard${ranges.length === 1 ? "" : "s"}:`,
    ...ranges.map(({ path, upTo }) => `  ${upTo === "" ? "to the end" : `up to ${JSON.stringify(upTo)}`}: ${path}`),
    ...(change === undefined ? [] : [`on the way from ${change.from.join(" and ")} to ${change.to.join(" and ")}`]),
  ];
};

const keptLines = (keptBy: Explanation["keptBy"] = []): string[] =>
  keptBy.map(
    ({ device, isTombstone, version }) =>
      `  ${device} is no replica, and keeps ${isTombstone ? "a deletion" : "a version"} for those that were away: ${madeAt(version)}`,
  );

const lines = ({
  epoch,
  keptBy,
  name,
  space,
  partition,
  hash,
  replicas,
  shards,
  verdict,
  way,
}: Explanation): string[] => [
  `${space} ${name}`,
  `partition ${partition}, hash ${hash}…, ${replicas.length} replicas, ${epoch === 0 ? "never moved" : `epoch ${epoch}`}`,
  ...(way === undefined ? [] : [way]),
  ...shardLines(shards),
  ...replicas.flatMap(replicaLines),
  ...keptLines(keptBy),
  verdict,
];

const SHOWN_MEMBERS = " and ";

/** Of a partition on its way to others. */
const wayOf = (devices: InstallationDevices, { next, old }: Configuration): string | undefined => {
  if (next === undefined) return undefined;
  const named = (these: readonly Member[], without: readonly Member[]): string =>
    these
      .filter(({ id }) => !without.some((one) => one.id === id))
      .map(({ id }) => devices.nameOfId(id))
      .join(SHOWN_MEMBERS);
  const [leaving, entering] = [named(old, next), named(next, old)];
  if (leaving === "") return `${entering} is to keep it too, and copies it`;
  return entering === ""
    ? `${leaving} is to leave it`
    : `${entering} is to keep it instead of ${leaving}, and copies it`;
};

/** Devices beside the replicas that keep something of the name; who cannot be asked is left out. */
const keepersOf = async (
  devices: InstallationDevices,
  name: Name,
  members: readonly Member[],
): Promise<NonNullable<Explanation["keptBy"]>> => {
  const others = devices.all().filter(({ device, node }) => !members.some(({ id }) => id === `${node}/${device}`));
  const answers = await Promise.all(
    others.map(async (place) => {
      const report = await devices
        .peer(place)
        .explain(name, false)
        .catch((error: unknown) => {
          if (error instanceof RingsteadError) return undefined;
          throw error;
        });
      const kept = report?.kept;
      return kept === undefined
        ? []
        : [{ device: devices.nameOf(place), version: kept.version, isTombstone: kept.isTombstone }];
    }),
  );
  return answers.flat();
};

/** What the devices of an installation have of a name. Errors: "usage" for what is no name, those of the connections that tell who keeps it. */
export const explanationOf = async (
  devices: InstallationDevices,
  path: string,
  readsBody: boolean,
): Promise<Explanation> => {
  const { space, parts } = spaceOf(path);
  const base = devices.bases[space];
  const { partition, hash32 } = base.placementOf(...parts);
  const name: Name = { space, hash32, path };
  const place = { space, partition, partitionPower: base.partitionPower };
  const first = base.primaries(partition).map(({ device, node }) => ({ id: `${node}/${device}`, since: 0 }));
  const known = (await newestConfiguration(place, devices.everybody())) ?? FIRST_EPOCH;
  // Who was never a member knows nothing of its first ones.
  const configuration = known.epoch === 0 ? { ...known, old: first } : known;
  const replicas = await Promise.all(
    configuration.old.map(async ({ id }): Promise<Replica> => {
      const label = devices.nameOfId(id);
      try {
        const peer = devices.peer(placeOfId(id));
        return { device: label, report: await peer.explain(name, readsBody), error: undefined };
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        return { device: label, report: undefined, error: messageOf(error) };
      }
    }),
  );
  const keptBy = await keepersOf(devices, name, [...configuration.old, ...(configuration.next ?? [])]);
  const { epoch } = configuration;
  const way = wayOf(devices, configuration);
  const hash = hash32.toString(16).padStart(8, "0");
  const shards = space === "container" ? shardsIn(path, parts[0], replicas) : undefined;
  return {
    name: path,
    space,
    partition,
    epoch,
    ...(way === undefined ? {} : { way }),
    hash,
    ...(shards === undefined ? {} : { shards }),
    replicas,
    ...(keptBy.length === 0 ? {} : { keptBy }),
    ...judge(replicas),
  };
};

/** `ringstead explain NAME`: exit 0 where all is well, 1 where it is not. */
export const explain = async (argv: readonly string[]): Promise<number> => {
  const options = {
    data: { type: "string" },
    read: { type: "boolean" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  } as const;
  const { values, positionals } = parseOptions(argv, options, true);
  const [path, ...rest] = positionals;
  if (values.help === true || path === "help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (path === undefined || rest.length > 0)
    throw new RingsteadError("usage", "one name is explained (see: ringstead explain help)");
  using devices = new InstallationDevices(runtimePaths(dataDirOf(values.data)));
  const found = await explanationOf(devices, path, values.read === true);
  process.stdout.write(
    values.json === true ? `${JSON.stringify(found, undefined, 2)}\n` : `${lines(found).join("\n")}\n`,
  );
  return found.isWell ? 0 : 1;
};
