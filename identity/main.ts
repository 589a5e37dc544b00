import { runServiceProcess } from "../common/service-process.ts";
import { startIdentity } from "./service.ts";

await runServiceProcess("control", ({ config, paths, clusterKey, log, metrics }) =>
  startIdentity({ config, paths, clusterKey, log, metrics, adminPassword: process.env["RINGSTEAD_ADMIN_PASSWORD"] }),
);
