import { readFileSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { portOf } from "../common/config.ts";
import { hybridClock } from "../common/hybrid-clock.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { ServiceContext } from "../common/service-process.ts";
import { version } from "../common/version.ts";
import { runWorkers, sleep } from "../common/worker.ts";
import { createIdentityClient, createTokenVerifier } from "../identity/client.ts";
import { loadRing } from "../ring/ring-file.ts";
import { accountReporter } from "./daemons/account-reporter.ts";
import { Accounts } from "./object-service/accounts.ts";
import { Ballots } from "./object-service/ballots.ts";
import { Containers } from "./object-service/containers.ts";
import { Objects } from "./object-service/objects.ts";
import { RegisterIo } from "./object-service/register-io.ts";
import { Replicas } from "./object-service/replicas.ts";
import { RowReader } from "./object-service/row-reader.ts";
import { createSwiftServer } from "./swift-api/swift-server.ts";

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
    version: version(),
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
  const workers = runWorkers([accountReporter(containers)], { log });
  log.info("proxy serves", { port: portOf(config, "object"), bind: config.bind });
  return {
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      await Promise.race([closed, sleep(DRAIN_LIMIT_MS)]);
      server.closeAllConnections();
      await workers[Symbol.asyncDispose]();
      // What was counted since the last round is told once more; if that fails, the next change tells it.
      await Promise.allSettled(containers.takeChanged().map((container) => containers.report(container)));
      rpc[Symbol.dispose]();
    },
  };
};
