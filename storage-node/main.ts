import { runServiceProcess } from "../common/service-process.ts";
import { startStorageNode } from "./service.ts";

await runServiceProcess("storage-node", ({ config, clusterId, clusterKey, paths, log, metrics }) =>
  startStorageNode({ config, clusterId, clusterKey, socketPath: paths.socket("storage-node"), log, metrics }),
);
