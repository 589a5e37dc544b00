import { type Builder, checkReplicas, countHeld } from "./builder.ts";
import { NO_DEVICE } from "./device.ts";
import { dropReplicas } from "./drop-replicas.ts";
import { endOfRow, nearestReplicas, replicasIn, type TableShape, tableShape } from "./table-shape.ts";
import { computeTargets } from "./targets.ts";

/**
 * Gives the table another replica count. More replicas are holes until the next rebalance; those that are too many are dropped
 * here, so that nothing has to move for it. Returns the count that was set: the nearest with a whole number of
 * partition replicas.
 * @throws RingsteadError `ring-invalid`
 */
export const setReplicas = (builder: Builder, replicas: number): number => {
  checkReplicas(replicas);
  const { partitionPower } = builder;
  const count = nearestReplicas(partitionPower, replicas);
  const before = tableShape(partitionPower, builder.replicas);
  const after = tableShape(partitionPower, count);
  const rows = Array.from({ length: before.partitionCount }, (_, partition) => [
    ...builder.assignments.subarray(partition * before.width, endOfRow(before, partition)),
  ]);
  if (after.replicaCount < before.replicaCount) shorten(rows, builder, after);
  const assignments = new Uint16Array(after.partitionCount * after.width).fill(NO_DEVICE);
  for (const [partition, row] of rows.entries()) assignments.set(row, partition * after.width);
  builder.assignments = assignments;
  builder.replicas = count;
  builder.version += 1;
  return count;
};

const shorten = (rows: number[][], { devices, overload, assignments }: Builder, after: TableShape): void => {
  const { partitionCount, replicaCount, width } = after;
  const held = countHeld({ devices, assignments });
  // Where too few devices have weight no rebalance could follow yet, and there are no targets to come near to.
  const isPossible = devices.filter((device) => device !== undefined && device.weight > 0).length >= width;
  const lengthOf = (partition: number): number => replicasIn(after, partition);
  if (!isPossible) {
    for (const [partition, row] of rows.entries()) {
      row.sort((a, b) => Number(a === NO_DEVICE) - Number(b === NO_DEVICE));
      row.length = lengthOf(partition);
    }
    return;
  }
  const replicas = replicaCount / partitionCount;
  const targets = computeTargets(devices, { partitionCount, replicas, overload, held });
  dropReplicas(rows, lengthOf, targets, held);
};
