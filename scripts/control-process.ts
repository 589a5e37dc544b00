import type { ServiceName } from "../common/config.ts";
import { createLog } from "../common/log.ts";
import { runServiceProcess } from "../common/service-process.ts";
import { CONTROL_ROLES, ROLES_OF_CONTROL } from "./control-roles.ts";

/*
 * The process `control`: identity, and the APIs of the other services that this node runs. Code of what was not chosen is not loaded; code of what
 * was is there before the process says that it is.
 */

const roles = new Set((process.env[CONTROL_ROLES] ?? ROLES_OF_CONTROL.join(",")).split(","));
const identity = roles.has("identity") ? await import("../identity/service.ts") : undefined;
const block = roles.has("block-api") ? await import("../block/service.ts") : undefined;

await runServiceProcess("control", async ({ config, paths, clusterKey, log, metrics }) => {
  await using starting = new AsyncDisposableStack();
  if (identity !== undefined) {
    const auditLog = createLog({ service: "identity", file: paths.logFile("audit") });
    const adminPassword = process.env["RINGSTEAD_ADMIN_PASSWORD"];
    // What cannot run here, for want of a program, is in no catalog.
    const isServed = (service: ServiceName): boolean =>
      service !== "block" || config.cluster !== undefined || block !== undefined;
    const served = { ...config, services: config.services.filter(isServed) };
    starting.use(
      await identity.startIdentity({ config: served, paths, clusterKey, log, metrics, auditLog, adminPassword }),
    );
  }
  if (block !== undefined) {
    starting.use(
      await block.startBlock({
        config,
        paths,
        clusterKey,
        log: log.child({ part: "block" }),
        metrics,
        table: config.block,
      }),
    );
  }
  return starting.move();
});
