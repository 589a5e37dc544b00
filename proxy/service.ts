import { readFileSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { portOf } from "../common/config.ts";
import { messageOf } from "../common/errors.ts";
import { hybridClock } from "../common/hybrid-clock.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { ServiceContext } from "../common/service-process.ts";
import { sleep } from "../common/worker.ts";
import { createIdentityClient, createTokenVerifier } from "../identity/client.ts";
import { loadRing } from "../ring/ring-file.ts";
import { Accounts } from "./object-service/accounts.ts";
import { Ballots } from "./object-service/ballots.ts";
import { Containers } from "./object-service/containers.ts";
import { Objects } from "./object-service/objects.ts";
import { RegisterIo } from "./object-service/register-io.ts";
import { Replicas } from "./object-service/replicas.ts";
import { RowReader } from "./object-service/row-reader.ts";
import { createSwiftServer } from "./swift-api/swift-server.ts";

/** Accounts' statistics follow their containers' within this. */
const ACCOUNT_REPORT_MS = 500;
/** How long a stopping proxy lets requests end. */
const DRAIN_LIMIT_MS = 25_000;

/** Starts the object service with its Swift face on the public port. */
export const startProxy = async ({
  config,
  paths,
  clusterKey,
  log,
  metrics,
}: ServiceContext): Promise<AsyncDisposable> => {
  const rings = {
    account: loadRing(paths.ringFile("account")),
    container: loadRing(paths.ringFile("container")),
    object: loadRing(paths.ringFile("object-0")),
  };
  const rpc = new RpcClient(paths.socket("storage-node"), clusterKey);
  const replicas = new Replicas(rings, () => rpc);
  const ballots = new Ballots(hybridClock(systemClock), systemClock);
  const io = new RegisterIo(ballots);
  const rows = new RowReader(io);
  const containers = new Containers(replicas, io, rows, ballots);
  const services = {
    accounts: new Accounts(replicas, io, rows),
    containers,
    objects: new Objects(replicas, io, containers, systemClock),
    clock: systemClock,
  };
  const server = createSwiftServer({
    services,
    verifier: createTokenVerifier({ keysDir: paths.identityDir, clock: systemClock }),
    identity: createIdentityClient(paths.socket("control")),
    version: "2.30.1",
    log,
    metrics,
    tls:
      config.tlsCert === undefined || config.tlsKey === undefined
        ? undefined
        : { cert: readFileSync(config.tlsCert), key: readFileSync(config.tlsKey) },
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(portOf(config, "object"), config.bind, 4096, () => resolve());
  });
  const stopping = new AbortController();
  const reporting = reportStatistics(containers, stopping.signal, (error) =>
    log.warn("an account's statistics could not be brought up to date", { error: messageOf(error) }),
  );
  log.info("proxy serves", { port: portOf(config, "object"), bind: config.bind });
  return {
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      await Promise.race([closed, sleep(DRAIN_LIMIT_MS)]);
      server.closeAllConnections();
      stopping.abort();
      await reporting;
      await Promise.all(containers.takeChanged().map((container) => containers.report(container).catch(() => {})));
      rpc[Symbol.dispose]();
    },
  };
};

const reportStatistics = async (
  containers: Containers,
  signal: AbortSignal,
  onError: (error: unknown) => void,
): Promise<void> => {
  while (!signal.aborted) {
    await sleep(ACCOUNT_REPORT_MS, signal);
    for (const container of containers.takeChanged()) await containers.report(container).catch(onError);
  }
};
