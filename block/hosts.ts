import type { Pool } from "./core/scheduler.ts";
import { messageOf } from "../common/errors.ts";
import { blockError } from "./core/block-error.ts";
import { ONE_INSTANT_SPEC } from "./core/consistency.ts";
import type { VolumeData } from "./volume-data.ts";
import type { PoolReport, VolumeHost } from "./volume-host.ts";

const GIB = 1024 ** 3;

/** A pool with the report that it comes from. */
export type HostPool = { readonly node: string; readonly name: string; readonly report: PoolReport };

/** What all hosts say, and which of them said nothing. */
type HostReports = {
  readonly pools: readonly HostPool[];
  readonly silent: readonly { readonly node: string; readonly reason: string }[];
};

/** The block hosts of the installation. */
export type Hosts = {
  readonly nodes: readonly string[];
  reports(): Promise<HostReports>;
  /** The host that has a volume's `backend`. Throws `host-unavailable` for one that is not known. */
  of(backend: string): VolumeHost;
  /** The bytes of the volumes there. Throws `host-unavailable` for a host that is not known. */
  dataOf(backend: string): VolumeData;
};

/** `NODE@BACKEND#POOL`: the driver is the back-end, as clients expect three parts. */
const backendName = (node: string, { driver, pool }: Pick<PoolReport, "driver" | "pool">): string =>
  `${node}@${driver}#${pool}`;

const nodeOf = (backend: string): string => backend.split("@", 1)[0] ?? "";
export const poolOf = (backend: string): string => backend.slice(backend.indexOf("#") + 1);

export const createHosts = (hosts: ReadonlyMap<string, VolumeHost>, data: ReadonlyMap<string, VolumeData>): Hosts => ({
  nodes: [...hosts.keys()],
  reports: async () => {
    const asked = await Promise.allSettled(
      [...hosts].map(async ([node, host]) =>
        (await host.pools()).map((report): HostPool => ({ node, name: backendName(node, report), report })),
      ),
    );
    const nodes = [...hosts.keys()];
    return {
      pools: asked.flatMap((one) => (one.status === "fulfilled" ? one.value : [])),
      silent: asked.flatMap((one, index) =>
        one.status === "rejected" ? [{ node: nodes[index] ?? "", reason: messageOf(one.reason) }] : [],
      ),
    };
  },
  of: (backend) => {
    const host = hosts.get(nodeOf(backend));
    if (host === undefined) throw blockError("host-unavailable", `there is no block host for ${backend}`);
    return host;
  },
  dataOf: (backend) => {
    const found = data.get(nodeOf(backend));
    if (found === undefined) throw blockError("host-unavailable", `there is no block host for ${backend}`);
    return found;
  },
});

/** The pool as the scheduler looks at it. `pendingGib`: of volumes that are to be made there and may not be in the report. */
export const schedulerPool = (
  { node, name, report }: HostPool,
  zone: string,
  isEnabled: boolean,
  pendingGib: number,
): Pool => ({
  name,
  zone,
  isEnabled,
  failure: report.failure,
  totalGib: report.totalBytes / GIB,
  freeGib: report.freeBytes / GIB - (report.isThin ? 0 : pendingGib),
  provisionedGib: report.provisionedBytes / GIB + pendingGib,
  volumeCount: report.volumeCount,
  isThin: report.isThin,
  capabilities: {
    volume_backend_name: report.driver,
    pool_name: report.pool,
    storage_protocol: ["nbd", "iSCSI"],
    vendor_name: "Ringstead",
    thin_provisioning_support: report.isThin ? "True" : "False",
    thick_provisioning_support: report.isThin ? "False" : "True",
    multiattach: "True",
    [ONE_INSTANT_SPEC]: "True",
    node,
  },
});
