import { runServiceProcess } from "../common/service-process.ts";
import { startIdentity } from "./service.ts";

await runServiceProcess("control", ({ config, paths, log, metrics }) =>
  startIdentity({ config, paths, log, metrics, adminPassword: process.env["RINGSTEAD_ADMIN_PASSWORD"] }),
);
