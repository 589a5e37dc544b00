import { RingsteadError } from "../common/errors.ts";
import { NO_DEVICE, RING_LIMITS, type RingData, type RingDevice } from "./device.ts";
import { deviceFault } from "./format.ts";
import { nearestReplicas, replicasFault, tableShape } from "./table-shape.ts";
import { createRing, type Ring } from "./ring.ts";

/**
 * The operator's side of a ring: devices, weights and the table that `rebalance` works on. Kept in a builder file, never
 * read by a service. The functions below change it in place; what they refuse leaves it as it was.
 */
export type Builder = {
  readonly hashSeed: bigint;
  partitionPower: number;
  /** May be a fraction, see `tableShape`. */
  replicas: number;
  /** A partition gives up no second replica by choice within this many hours. */
  minPartHours: number;
  /** Fraction by which a device may exceed its weight's share where that brings replicas further apart; 0 = never. */
  overload: number;
  /** Grows with every change. */
  version: number;
  /** Index = device id; `undefined` where a device was removed. Ids are never given out twice. */
  readonly devices: (RingDevice | undefined)[];
  /** As in `RingData`, with `NO_DEVICE` also where a replica waits for the next rebalance. */
  assignments: Uint16Array;
  /** Per partition the second since 1970 when a replica of it last moved; 0 = never. */
  movedAtSeconds: Uint32Array;
};

export type BuilderOptions = {
  partitionPower: number;
  /** From 1 to 16; a fraction is rounded to a whole number of partition replicas. */
  replicas: number;
  minPartHours: number;
  /** Seed of the placement hash, 64 bits: random, and never to change once data is stored. */
  seed: bigint;
  overload?: number;
};

const refuse = (message: string, fields: Record<string, unknown> = {}): never => {
  throw new RingsteadError("ring-invalid", message, fields);
};

const checkWhole = (what: string, value: number, min: number, max: number): void => {
  if (!Number.isInteger(value) || value < min || value > max)
    refuse(`${what} must be a whole number from ${min} to ${max}, not ${value}`, { what, value, min, max });
};

/** @throws RingsteadError `ring-invalid` */
export const checkReplicas = (replicas: number): void => {
  const fault = replicasFault(replicas);
  if (fault !== undefined) refuse(fault, { replicas });
};

const checkOverload = (overload: number): void => {
  if (!(overload >= 0 && overload <= RING_LIMITS.overloadMax))
    refuse(`overload must be a number from 0 to ${RING_LIMITS.overloadMax}, not ${overload}`, { overload });
};

/** @throws RingsteadError `ring-invalid` when a number is out of `RING_LIMITS` */
export const createBuilder = (options: BuilderOptions): Builder => {
  const { partitionPower, replicas, minPartHours, seed, overload = 0 } = options;
  checkWhole("partition power", partitionPower, RING_LIMITS.partitionPowerMin, RING_LIMITS.partitionPowerMax);
  checkReplicas(replicas);
  checkWhole("min_part_hours", minPartHours, 0, RING_LIMITS.minPartHoursMax);
  checkOverload(overload);
  const partitionCount = 2 ** partitionPower;
  const count = nearestReplicas(partitionPower, replicas);
  return {
    hashSeed: BigInt.asUintN(64, seed),
    partitionPower,
    replicas: count,
    minPartHours,
    overload,
    version: 0,
    devices: [],
    assignments: new Uint16Array(partitionCount * Math.ceil(count)).fill(NO_DEVICE),
    movedAtSeconds: new Uint32Array(partitionCount),
  };
};

/**
 * Adds a device and returns its id. It holds nothing until the next rebalance.
 * @throws RingsteadError `ring-invalid`
 */
export const addDevice = (builder: Builder, device: Omit<RingDevice, "id">): number => {
  const { region, zone, node, device: name, weight, meta } = device;
  const id = builder.devices.length;
  const entry = { region, zone, node, device: name, weight, ...(meta === undefined ? {} : { meta }) };
  const fault = deviceFault(entry);
  if (fault !== undefined) refuse(`device ${node}/${name}: ${fault}`, { ...entry });
  if (id >= RING_LIMITS.deviceCountMax) refuse(`a ring has room for ${RING_LIMITS.deviceCountMax} devices`);
  const twin = builder.devices.find((other) => other?.node === node && other.device === name);
  if (twin !== undefined) refuse(`device ${node}/${name} is there already, as device ${twin.id}`, { id: twin.id });
  builder.devices.push(Object.freeze({ id, ...entry }));
  builder.version += 1;
  return id;
};

const requireDevice = (builder: Builder, id: number): RingDevice =>
  builder.devices[id] ?? refuse(`there is no device ${id}`, { id });

/**
 * Takes a device out as lost: the next rebalance gives all its replicas to others at once, whatever
 * `minPartHours` says. To empty a device that works, set its weight to 0 and rebalance until it holds nothing.
 */
export const removeDevice = (builder: Builder, id: number): void => {
  requireDevice(builder, id);
  builder.devices[id] = undefined;
  for (let slot = 0; slot < builder.assignments.length; slot += 1)
    if (builder.assignments[slot] === id) builder.assignments[slot] = NO_DEVICE;
  builder.version += 1;
};

/** Takes effect with the next rebalance. */
export const setWeight = (builder: Builder, id: number, weight: number): void => {
  const device = requireDevice(builder, id);
  const changed = Object.freeze({ ...device, weight });
  const { id: _, ...entry } = changed;
  const fault = deviceFault(entry);
  if (fault !== undefined) refuse(`device ${id}: ${fault}`, { id, weight });
  builder.devices[id] = changed;
  builder.version += 1;
};

/** Takes effect with the next rebalance. @throws RingsteadError `ring-invalid` */
export const setOverload = (builder: Builder, overload: number): void => {
  checkOverload(overload);
  builder.overload = overload;
  builder.version += 1;
};

/** Partition replicas that each device holds, by device id. */
export const countHeld = ({ devices, assignments }: Pick<RingData, "devices" | "assignments">): Int32Array => {
  const held = new Int32Array(devices.length);
  for (const device of assignments) if (device !== NO_DEVICE) held[device] = (held[device] ?? 0) + 1;
  return held;
};

/** Replicas that wait for the next rebalance to get a device. */
export const countHoles = ({ partitionPower, replicas, devices, assignments }: Builder): number =>
  tableShape(partitionPower, replicas).replicaCount -
  countHeld({ devices, assignments }).reduce((sum, count) => sum + count, 0);

/**
 * The ring as it stands; later changes of the builder do not touch it.
 * @throws RingsteadError `ring-needs-rebalance` while replicas have no device
 */
export const buildRing = (builder: Builder): Ring => {
  const { version, hashSeed, partitionPower, replicas, assignments } = builder;
  if (countHoles(builder) > 0)
    throw new RingsteadError("ring-needs-rebalance", "some replicas have no device yet; rebalance first");
  const data: RingData = {
    version,
    hashSeed,
    partitionPower,
    replicas,
    devices: Object.freeze([...builder.devices]),
    assignments: assignments.slice(),
  };
  return createRing(data);
};
