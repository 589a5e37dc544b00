import { codeOf } from "../common/errors.ts";
import type { Builder } from "./builder.ts";
import { loadBuilder } from "./builder-file.ts";
import { table } from "./command-words.ts";
import type { RingData } from "./device.ts";
import { loadRing } from "./ring-file.ts";
import { tableShape } from "./table-shape.ts";

/** What builder and ring file have in common, and what only a builder has. */
type Shown = RingData & Partial<Pick<Builder, "minPartHours" | "overload">>;

/**
 * A builder or ring file as a table or as JSON, for the operator.
 * @throws RingsteadError as `loadRing` does
 */
export const showFile = (path: string, asJson: boolean): string => {
  const shown = load(path);
  const held = new Map<number, number>();
  for (const id of shown.assignments) held.set(id, (held.get(id) ?? 0) + 1);
  const devices = shown.devices
    .filter((device) => device !== undefined)
    .map((device) => ({ ...device, partitionReplicas: held.get(device.id) ?? 0 }));
  const { version, partitionPower, replicas, minPartHours, overload } = shown;
  const summary = { version, partitionPower, replicas, minPartHours, overload, hashSeed: shown.hashSeed.toString(16) };
  if (asJson) return `${JSON.stringify({ ...summary, devices }, undefined, 2)}\n`;

  const { replicaCount } = tableShape(partitionPower, replicas);
  const totalWeight = devices.reduce((sum, device) => sum + device.weight, 0);
  const rows = devices.map((device) => [
    ...[device.id, device.region, device.zone, device.node, device.device, device.weight].map(String),
    `${(totalWeight > 0 ? (100 * device.weight) / totalWeight : 0).toFixed(2)}`,
    `${device.partitionReplicas}`,
    `${((100 * device.partitionReplicas) / replicaCount).toFixed(2)}`,
    device.meta ?? "",
  ]);
  const head = ["id", "region", "zone", "node", "device", "weight", "weight %", "replicas", "replicas %", "meta"];
  const facts = Object.entries(summary).filter(([, value]) => value !== undefined);
  return `${facts.map(([name, value]) => `${name} ${value}`).join(", ")}\n${table([head, ...rows])}`;
};

const load = (path: string): Shown => {
  try {
    return loadRing(path);
  } catch (error) {
    if (codeOf(error) !== "ring-file-foreign") throw error;
    return loadBuilder(path);
  }
};
