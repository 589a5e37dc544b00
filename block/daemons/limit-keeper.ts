import { sleep, type Worker } from "../../common/worker.ts";
import { limitsOf, type VolumeLimits } from "../core/qos-limits.ts";
import type { Hosts } from "../hosts.ts";
import { pairsOfAll } from "../store/pairs.ts";
import type { BlockDatabase } from "../store/schema.ts";

/** How late a host hears of new limits, after a change of specs, types or sizes. */
const LOOK_MS = 1000;

/** Limits by node and volume. Volumes without any are not among them. */
const wantedLimits = async (
  database: BlockDatabase,
  nodes: readonly string[],
): Promise<ReadonlyMap<string, ReadonlyMap<string, VolumeLimits>>> => {
  const rows = await database
    .selectFrom("volumes")
    .innerJoin("volume_types", "volume_types.id", "volumes.volume_type_id")
    .select(["volumes.id", "volumes.backend", "volumes.size_gib", "volume_types.qos_specs_id"])
    .where("volume_types.qos_specs_id", "is not", null)
    .where("volumes.backend", "is not", null)
    .orderBy("volumes.id")
    .execute();
  const specs = await pairsOfAll(database, "qos_spec_pairs", [...new Set(rows.map((row) => row.qos_specs_id ?? ""))]);
  const found = new Map(nodes.map((node) => [node, new Map<string, VolumeLimits>()]));
  for (const row of rows) {
    const limits = limitsOf(specs.get(row.qos_specs_id ?? "") ?? {}, row.size_gib);
    const node = row.backend?.split("@", 1)[0] ?? "";
    if (Object.keys(limits).length > 0) found.get(node)?.set(row.id, limits);
  }
  return found;
};

/**
 * Tells hosts what their volumes may do, whenever that is not what they were told last: a spec, a volume's type or its size changed. All limits are
 * kept where the volume is served, whoever of Cinder's consumers is named: no client of ours keeps any by itself. Those for the front-end are told
 * to clients as well.
 */
export const createLimitKeeper = (database: BlockDatabase, hosts: Hosts): Worker => {
  const told = new Map<string, string>();
  let limited = 0;
  return {
    name: "limits of volumes",
    status: () => ({ limited }),
    work: async () => {
      const wanted = await wantedLimits(database, hosts.nodes);
      limited = [...wanted.values()].reduce((sum, { size }) => sum + size, 0);
      const asked = await Promise.allSettled(
        [...wanted].map(async ([node, limits]) => {
          const text = JSON.stringify([...limits]);
          if (told.get(node) === text) return;
          await hosts.of(node).limitVolumes(limits);
          told.set(node, text);
        }),
      );
      // One that is away hinders no other; it is told when it is back.
      const failed = asked.find((one) => one.status === "rejected");
      if (failed !== undefined) throw failed.reason;
      return "idle";
    },
    waitForWork: (signal) => sleep(LOOK_MS, signal),
  };
};
