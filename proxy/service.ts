import { readFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../common/clock.ts";
import { portOf } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { drain } from "../common/http/drain.ts";
import { hybridClock } from "../common/hybrid-clock.ts";
import { bindServer } from "../common/listeners.ts";
import type { Metrics } from "../common/metrics.ts";
import type { ServiceContext } from "../common/service-process.ts";
import { version } from "../common/version.ts";
import { runWorkers } from "../common/worker.ts";
import { createRevocationFollower, createTokenVerifier, openAccessKeys } from "../identity/client.ts";
import { loadBaseRing, OTHER_BASE_REMEDY } from "../ring/base-ring.ts";
import { type MoveStatus, moveStatusText } from "../ring/move-status.ts";
import type { Space } from "../storage-node/wire.ts";
import { accountReporter } from "./daemons/account-reporter.ts";
import { expirer } from "./daemons/expirer.ts";
import { type MoveProgress, Mover, type RingProgress } from "./daemons/mover.ts";
import { LatestFile } from "./daemons/latest-file.ts";
import { settler } from "./daemons/settler.ts";
import { Sharder } from "./daemons/sharder.ts";
import { NodePeers } from "./node-peers.ts";
import { Accounts } from "./object-service/accounts.ts";
import { Ballots } from "./object-service/ballots.ts";
import { Containers } from "./object-service/containers.ts";
import { DueIndex } from "./object-service/due-index.ts";
import { settleWith, unsettledAt } from "./object-service/left-behind.ts";
import { MoveIo } from "./object-service/move-io.ts";
import { MoverLease, SHARDER_LEASE } from "./object-service/mover-lease.ts";
import { Objects } from "./object-service/objects.ts";
import { RegisterIo } from "./object-service/register-io.ts";
import { Partitions } from "./object-service/partitions.ts";
import { Policies } from "./object-service/policies.ts";
import { RowReader } from "./object-service/row-reader.ts";
import { ScriptRunner } from "./object-service/script-runner.ts";
import { Sharding } from "./object-service/sharding.ts";
import { TargetRings } from "./object-service/target-rings.ts";
import { createS3Server, takeS3Requests } from "./s3-api/s3-server.ts";
import { createSwiftServer } from "./swift-api/swift-server.ts";

/** How long a stopping proxy lets requests end. */
const DRAIN_LIMIT_MS = 25_000;

/** How far moves are is no secret, and operators look at it as themselves. */
const STATUS_MODE = 0o644;

/** Connections that wait to be accepted while many clients come at once. */
const LISTEN_BACKLOG = 4096;

/** The file of each space's ring; objects of the first storage policy. */
const RING_OF: Readonly<Record<Space, string>> = { account: "account", container: "container", object: "object-0" };
const SPACES: readonly Space[] = ["account", "container", "object"];

const moveStatusOf = ({ isMover, rings, secondsLeft }: MoveProgress): MoveStatus => ({
  at: new Date(systemClock.nowMs()).toISOString(),
  isMover,
  ...(secondsLeft === undefined ? {} : { secondsLeft }),
  rings: Object.fromEntries(
    SPACES.map((space) => {
      const { otherBase, refusal, ...said } = rings[space];
      const known = {
        ...(refusal === undefined ? {} : { refusal }),
        ...(otherBase === undefined ? {} : { otherBase }),
      };
      return [RING_OF[space], { ...said, ...known }];
    }),
  ),
});

const showMoves = (metrics: Metrics, mover: Mover): void => {
  for (const space of SPACES) {
    const labels = { ring: RING_OF[space] };
    const show = (name: string, help: string, read: (ring: RingProgress) => number): void =>
      metrics.gauge(`ringstead_ring_${name}`, help, () => read(mover.lastProgress.rings[space]), labels);
    show("version", "Version of the ring that says where data is to be.", ({ version: number }) => number);
    show("refused", "1 while the ring file that is there is not the one that counts.", ({ refusal }) =>
      Number(refusal !== undefined),
    );
    show("partitions_to_move", "Partitions whose members are not those of the ring.", ({ toMove }) => toMove);
    show("partitions_moving", "Partitions on their way to other members.", ({ moving }) => moving);
    show("partitions_moved", "Partitions that were ever moved and are in place.", ({ done }) => done);
    show(
      "entries_to_release",
      "Entries on devices that do not keep their partitions any more.",
      (ring) => ring.entriesToRelease,
    );
  }
};

const showShards = (metrics: Metrics, sharder: Sharder): void => {
  const show = (name: string, help: string, read: (progress: Sharder["progress"]) => number): void =>
    metrics.gauge(`ringstead_listing_${name}`, help, () => read(sharder.progress));
  show("splits", "Listings that this process has split since its start.", ({ splits }) => splits);
  show("merges", "Listings that this process has merged since its start.", ({ merges }) => merges);
  show("changes_waiting", "Containers whose listing waits to be looked at.", ({ waiting }) => waiting);
};

/**
 * A proxy that takes other devices for the first members gets no answer from those who are none, and finds none of what they keep. Where nobody can be asked
 * yet the mover finds it out. Errors (thrown): "base-ring-other".
 */
const requireSameBase = ({ otherBase }: Pick<MoveIo, "otherBase">): void => {
  if (otherBase === undefined) return;
  throw new RingsteadError(
    "base-ring-other",
    `the ring of ${otherBase.space}s that this node has as its base is another one than that of ${otherBase.id}: ${OTHER_BASE_REMEDY}`,
  );
};

/** Starts the object service: its Swift face and signed S3 requests on the object port, S3 alone on a port of its own. */
export const startProxy = async (context: ServiceContext): Promise<AsyncDisposable> => {
  const { config, paths, log, metrics } = context;
  const ringPathOf = (space: Space): string => paths.ringFile(RING_OF[space]);
  const rings = {
    account: loadBaseRing(ringPathOf("account")),
    container: loadBaseRing(ringPathOf("container")),
    object: loadBaseRing(ringPathOf("object")),
  };
  const peers = new NodePeers(context);
  const targets = new TargetRings({
    base: rings,
    pathOf: ringPathOf,
    checkKnown: ({ devices }) => peers.storageNodes.checkKnown(devices),
    log,
  });
  const ballots = new Ballots(hybridClock(systemClock), systemClock);
  const partitions = new Partitions(
    rings,
    (device) => peers.storageNodes.of(device),
    (floor) => ballots.passed(floor),
    (space) => targets.ringOf(space),
  );
  const io = new RegisterIo(ballots);
  const runner = new ScriptRunner(io, new RowReader(io));
  const policies = new Policies(config.storagePolicies);
  const containers = new Containers(partitions, runner, ballots, policies);
  const objects = new Objects(partitions, io, runner, containers, systemClock);
  const accounts = new Accounts(partitions, runner);
  const moves = new MoveIo(io, partitions);
  const status = new LatestFile(join(paths.ringsDir, "moves.json"), STATUS_MODE, (error) =>
    log.warn("how far the moves are could not be kept for ringstead ring status", { error }),
  );
  const mover = new Mover({
    targets,
    partitions,
    moves,
    lease: new MoverLease(accounts, systemClock),
    log,
    onProgress: (progress) => status.put(moveStatusText(moveStatusOf(progress))),
  });
  showMoves(metrics, mover);
  const sharder = new Sharder({
    sharding: new Sharding(containers, partitions, runner, config.shardNames),
    takeReported: () => containers.takeShardWork(),
    lease: new MoverLease(accounts, systemClock, SHARDER_LEASE),
    clock: systemClock,
    log,
  });
  showShards(metrics, sharder);
  const services = { accounts, containers, objects, policies, clock: systemClock };
  const backgroundWorkers = [
    accountReporter(containers),
    expirer(new DueIndex(partitions, runner), (...due) => objects.expire(...due), systemClock),
    settler(
      () => [...partitions.replicas().values()].map(({ client }) => unsettledAt(client)),
      settleWith({ ...services, moves }),
      systemClock,
    ),
    mover,
    sharder,
  ];
  const identity = peers.identity();
  const revocations = createRevocationFollower({
    client: identity.client,
    clock: systemClock,
    graceSeconds: config.revocationGraceSeconds,
  });
  metrics.gauge(
    "ringstead_revocations_silent_seconds",
    "Seconds since the identity service told of revoked tokens.",
    () => revocations.silentSeconds(),
  );
  const tls =
    config.tlsCert === undefined || config.tlsKey === undefined
      ? undefined
      : { cert: readFileSync(config.tlsCert), key: readFileSync(config.tlsKey) };
  const server = createSwiftServer({
    services,
    verifier: createTokenVerifier({
      keysDir: paths.identityDir,
      clock: systemClock,
      revocations: revocations.source,
    }),
    identity: identity.client,
    version: version(),
    log,
    metrics,
    tls,
  });
  const keys = await openAccessKeys({
    client: identity.client,
    news: revocations.source,
    clock: systemClock,
    clusterKey: context.clusterKey,
    folder: paths.identityDir,
    log,
  });
  const s3Services = { keys, clock: systemClock, log };
  takeS3Requests(server, s3Services);
  const s3Server = createS3Server(s3Services, tls);
  // Who keeps what was moved is known before the first client asks, as far as devices are there.
  await moves.follow();
  requireSameBase(moves);
  await bindServer(server, { host: config.bind, port: portOf(config, "object") }, LISTEN_BACKLOG);
  await bindServer(s3Server, { host: config.bind, port: portOf(config, "s3") }, LISTEN_BACKLOG);
  const workers = runWorkers([...backgroundWorkers, ...identity.workers, revocations.worker, keys.worker], { log });
  log.info("proxy serves", { port: portOf(config, "object"), s3Port: portOf(config, "s3"), bind: config.bind });
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all([drain(server, DRAIN_LIMIT_MS), drain(s3Server, DRAIN_LIMIT_MS)]);
      await workers[Symbol.asyncDispose]();
      await mover[Symbol.asyncDispose]();
      await sharder[Symbol.asyncDispose]();
      await status[Symbol.asyncDispose]();
      await keys[Symbol.asyncDispose]();
      // What was counted since the last round is told once more; if that fails, the next change tells it.
      await Promise.allSettled(containers.takeChanged().map((container) => containers.report(container)));
      peers[Symbol.dispose]();
    },
  };
};
