import { join } from "node:path";
import { addDevice, type Builder, createBuilder, removeDevice, setWeight } from "../ring/builder.ts";
import { loadBuilder, saveBuilder } from "../ring/builder-file.ts";
import { NO_DEVICE } from "../ring/device.ts";
import { setReplicas } from "../ring/set-replicas.ts";
import { tableShape } from "../ring/table-shape.ts";
import { EMPTY, type LifeTable } from "./ring-life-figures.ts";
import type { Life, LifeChange, LifeDevice } from "./ring-life-script.ts";

/** The index of each key; a device that comes back gets its old one. */
export class LifeIndex {
  readonly #keys: string[] = [];

  of(key: string): number {
    const known = this.#keys.indexOf(key);
    return known < 0 ? this.#keys.push(key) - 1 : known;
  }

  get size(): number {
    return this.#keys.length;
  }
}

/** Does to a builder what the script says. Keys are kept as device names. */
export const applyToBuilder = (builder: Builder, change: LifeChange): void => {
  const idOf = (key: string): number => builder.devices.findIndex((device) => device?.device === key);
  switch (change.kind) {
    case "add":
      for (const { zone, node, key, weight } of change.devices)
        addDevice(builder, { region: 1, zone, node, device: key, weight });
      return;
    case "remove":
      return removeDevice(builder, idOf(change.key));
    case "weigh":
      return setWeight(builder, idOf(change.key), change.weight);
    case "replicas":
      setReplicas(builder, change.replicas);
  }
};

export const tableOf = (builder: Builder, index: LifeIndex): LifeTable => {
  const { partitionCount, width } = tableShape(builder.partitionPower, builder.replicas);
  const indexOfId = builder.devices.map((device) => (device === undefined ? EMPTY : index.of(device.device)));
  const cells = builder.assignments.map((id) => (id === NO_DEVICE ? EMPTY : (indexOfId[id] ?? EMPTY)));
  const devices: (LifeDevice | undefined)[] = Array.from({ length: index.size });
  for (const device of builder.devices)
    if (device !== undefined)
      devices[index.of(device.device)] = {
        key: device.device,
        zone: device.zone,
        node: device.node,
        weight: device.weight,
      };
  return { partitionCount, replicas: builder.replicas, width, cells, devices };
};

export const newBuilder = ({ partitionPower, replicas }: Life): Builder =>
  createBuilder({ partitionPower, replicas, minPartHours: 1, seed: 0x5eedn });

/** As `scripts/ringstead` starts it. */
const PROGRAM = [
  process.execPath,
  "--disable-warning=ExperimentalWarning",
  join(import.meta.dirname, "../scripts/ringstead.ts"),
] as const;

/** The ring of Ringstead in files of `folder`, so that its command line can be measured. */
export class RingsteadRing {
  readonly #path: string;
  readonly #index = new LifeIndex();
  readonly rebalanceCommand: readonly [string, ...string[]];

  constructor(folder: string, life: Life) {
    this.#path = join(folder, "life.builder");
    saveBuilder(this.#path, newBuilder(life));
    this.rebalanceCommand = [...PROGRAM, "ring", "rebalance", this.#path, "--force", "--seed", "1"];
  }

  /** The command that is measured; other changes are applied. */
  commandFor(change: LifeChange): readonly [string, ...string[]] | undefined {
    if (change.kind !== "replicas") return undefined;
    return [...PROGRAM, "ring", "set-replicas", this.#path, String(change.replicas)];
  }

  apply(change: LifeChange): void {
    const builder = loadBuilder(this.#path);
    applyToBuilder(builder, change);
    saveBuilder(this.#path, builder);
  }

  table(): LifeTable {
    return tableOf(loadBuilder(this.#path), this.#index);
  }
}
