import { devicesOfStorageNode } from "../common/device-groups.ts";
import { runServiceProcess } from "../common/service-process.ts";
import { startStorageNode } from "./service.ts";

await runServiceProcess(
  "storage-node",
  ({ role, config, deviceGroups, clusterId, clusterKey, paths, log, metrics }) => {
    const only = devicesOfStorageNode(deviceGroups, role);
    return startStorageNode({ config, only, clusterId, clusterKey, socketPath: paths.socket(role), log, metrics });
  },
);
