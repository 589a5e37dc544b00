import { readFileSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { portOf } from "../common/config.ts";
import { drain } from "../common/http/drain.ts";
import { hybridClock } from "../common/hybrid-clock.ts";
import { bindServer } from "../common/listeners.ts";
import type { ServiceContext } from "../common/service-process.ts";
import { version } from "../common/version.ts";
import { runWorkers } from "../common/worker.ts";
import { createRevocationFollower, createTokenVerifier, openAccessKeys } from "../identity/client.ts";
import type { RingDevice } from "../ring/device.ts";
import { loadRing } from "../ring/ring-file.ts";
import { DeviceClient } from "../storage-node/client.ts";
import { accountReporter } from "./daemons/account-reporter.ts";
import { expirer } from "./daemons/expirer.ts";
import { settler } from "./daemons/settler.ts";
import { NodePeers } from "./node-peers.ts";
import { Accounts } from "./object-service/accounts.ts";
import { Ballots } from "./object-service/ballots.ts";
import { Containers } from "./object-service/containers.ts";
import { DueIndex } from "./object-service/due-index.ts";
import { settleWith, unsettledAt } from "./object-service/left-behind.ts";
import { Objects } from "./object-service/objects.ts";
import { RegisterIo } from "./object-service/register-io.ts";
import { Replicas, type Rings } from "./object-service/replicas.ts";
import { RowReader } from "./object-service/row-reader.ts";
import { ScriptRunner } from "./object-service/script-runner.ts";
import { createS3Server, takeS3Requests } from "./s3-api/s3-server.ts";
import { createSwiftServer } from "./swift-api/swift-server.ts";

/** How long a stopping proxy lets requests end. */
const DRAIN_LIMIT_MS = 25_000;

/** Connections that wait to be accepted while many clients come at once. */
const LISTEN_BACKLOG = 4096;

/** Every device that some ring names, once. */
const devicesOf = (rings: Rings): readonly RingDevice[] => {
  const devices = Object.values(rings).flatMap((ring) => ring.devices.filter((device) => device !== undefined));
  return [...new Map(devices.map((device) => [`${device.node}/${device.device}`, device])).values()];
};

/** Starts the object service: its Swift face and signed S3 requests on the object port, S3 alone on a port of its own. */
export const startProxy = async (context: ServiceContext): Promise<AsyncDisposable> => {
  const { config, paths, log, metrics } = context;
  const rings = {
    account: loadRing(paths.ringFile("account")),
    container: loadRing(paths.ringFile("container")),
    object: loadRing(paths.ringFile("object-0")),
  };
  const peers = new NodePeers(context);
  for (const ring of Object.values(rings)) peers.storageNodes.checkKnown(ring.devices);
  const replicas = new Replicas(rings, (device) => peers.storageNodes.of(device));
  const ballots = new Ballots(hybridClock(systemClock), systemClock);
  const io = new RegisterIo(ballots);
  const runner = new ScriptRunner(io, new RowReader(io));
  const containers = new Containers(replicas, runner, ballots);
  const objects = new Objects(replicas, io, runner, containers, systemClock);
  const services = { accounts: new Accounts(replicas, runner), containers, objects, clock: systemClock };
  const backgroundWorkers = [
    accountReporter(containers),
    expirer(new DueIndex(replicas, runner), (...due) => objects.expire(...due), systemClock),
    settler(
      devicesOf(rings).map((device) => unsettledAt(new DeviceClient(peers.storageNodes.of(device), device.device))),
      settleWith(services),
      systemClock,
    ),
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
  await bindServer(server, { host: config.bind, port: portOf(config, "object") }, LISTEN_BACKLOG);
  await bindServer(s3Server, { host: config.bind, port: portOf(config, "s3") }, LISTEN_BACKLOG);
  const workers = runWorkers([...backgroundWorkers, ...identity.workers, revocations.worker, keys.worker], { log });
  log.info("proxy serves", { port: portOf(config, "object"), s3Port: portOf(config, "s3"), bind: config.bind });
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all([drain(server, DRAIN_LIMIT_MS), drain(s3Server, DRAIN_LIMIT_MS)]);
      await workers[Symbol.asyncDispose]();
      await keys[Symbol.asyncDispose]();
      // What was counted since the last round is told once more; if that fails, the next change tells it.
      await Promise.allSettled(containers.takeChanged().map((container) => containers.report(container)));
      peers[Symbol.dispose]();
    },
  };
};
