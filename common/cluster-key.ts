import { readFileSync } from "node:fs";
import type { RuntimePaths } from "./runtime-paths.ts";

/** The secret that the processes of a cluster share. */
export const readClusterKey = ({ clusterKey }: Pick<RuntimePaths, "clusterKey">): Buffer =>
  Buffer.from(readFileSync(clusterKey, "utf8").trim(), "hex");
