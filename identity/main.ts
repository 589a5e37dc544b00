import { createLog } from "../common/log.ts";
import { runServiceProcess } from "../common/service-process.ts";
import { startIdentity } from "./service.ts";

await runServiceProcess("control", ({ config, paths, clusterKey, log, metrics }) =>
  startIdentity({
    config,
    paths,
    clusterKey,
    log,
    metrics,
    auditLog: createLog({ service: "identity", file: paths.logFile("audit") }),
    adminPassword: process.env["RINGSTEAD_ADMIN_PASSWORD"],
  }),
);
