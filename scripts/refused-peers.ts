import type { RuntimePaths } from "../common/runtime-paths.ts";
import { type Finding, problem, warning } from "./finding.ts";
import { getOverSocket } from "./metrics-page.ts";

/** A label's value as it was before it was written on the page. */
const unescaped = (label: string): string =>
  label.replaceAll(/\\(.)/g, (_, letter: string) => (letter === "n" ? "\n" : letter));

/** Of nodes that share the key; whoever else is refused at the port may be anybody, and costs nothing. */
const OF_NODES = new Set(["rpc-versions", "clock-off"]);

/** What is to be said of peers that were refused lately, from the metrics pages of the processes. */
export const refusalsOn = (page: string): Finding[] => {
  const text = String.raw`"((?:[^"\\]|\\.)*)"`;
  const labels = ["role", "side", "peer", "code", "reason", "remedy"].map((name) => `${name}=${text}`).join(",");
  const series = new RegExp(`^ringstead_rpc_refused_seconds\\{${labels}\\} (\\d+)$`, "gm");
  return [...page.matchAll(series)].map((found) => {
    const [role = "", side = "", peer = "", code = "", reason = "", remedy = ""] = found.slice(1).map(unescaped);
    const at = new Date(Number(found[7]) * 1000).toISOString();
    return side === "client"
      ? problem(
          `${role} cannot use its peer at ${peer} (last at ${at}): ${reason}`,
          "it goes on without that peer",
          remedy,
        )
      : (OF_NODES.has(code) ? problem : warning)(
          `${role} refused a peer from ${peer} (last at ${at}): ${reason}`,
          "nothing of what it wanted was done",
          remedy,
        );
  });
};

/** Those of the processes that run. */
export const refusedPeers = async (paths: RuntimePaths, processRoles: readonly string[]): Promise<Finding[]> => {
  const asked = processRoles.map((name) => getOverSocket(paths.socket(`metrics-${name}`), "/metrics").catch(() => ""));
  return (await Promise.all(asked)).flatMap(refusalsOn);
};
