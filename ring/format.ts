import { Type, type Static } from "typebox";
import { Compile } from "typebox/compile";
import { NO_DEVICE, RING_LIMITS, type RingData, type RingDevice } from "./device.ts";
import { endOfRow, nearestReplicas, type TableShape, tableShape } from "./table-shape.ts";
import { damaged, decodeFrame, encodeFrame, type FrameKind } from "./frame.ts";

/** The ring file, see FORMAT.md. */
export const RING_FILE: FrameKind = { name: "ring file", magic: "RSTDRING", formatVersion: 2 };

const closed = { additionalProperties: false };
const name = Type.String({ minLength: 1, maxLength: RING_LIMITS.nameLengthMax, pattern: "^[^\\u0000-\\u0020/]+$" });
const tierNumber = Type.Integer({ minimum: 0, maximum: RING_LIMITS.tierNumberMax });

/** A device in a header; its id is its index in the table, `null` stands for a device that was removed. */
const DeviceEntry = Type.Object(
  {
    region: tierNumber,
    zone: tierNumber,
    node: name,
    device: name,
    weight: Type.Number({ minimum: 0, maximum: RING_LIMITS.weightMax }),
    meta: Type.Optional(Type.String({ maxLength: RING_LIMITS.metaLengthMax })),
  },
  closed,
);

/** The fields that the headers of ring and builder files share. */
export const sharedHeaderFields = {
  version: Type.Integer({ minimum: 0, maximum: RING_LIMITS.versionMax }),
  hashSeed: Type.String({ pattern: "^[0-9a-f]{16}$" }),
  partitionPower: Type.Integer({ minimum: RING_LIMITS.partitionPowerMin, maximum: RING_LIMITS.partitionPowerMax }),
  replicas: Type.Number({ minimum: 1, maximum: RING_LIMITS.replicasMax }),
  devices: Type.Array(Type.Union([Type.Null(), DeviceEntry]), { maxItems: RING_LIMITS.deviceCountMax }),
};

const RingHeader = Compile(Type.Object(sharedHeaderFields, closed));
const deviceEntry = Compile(DeviceEntry);

/** Why `device` may not stand in a ring, or undefined if it may. */
export const deviceFault = (device: Omit<RingDevice, "id">): string | undefined => {
  const [error] = deviceEntry.Errors(device);
  return error === undefined ? undefined : `${error.instancePath.slice(1) || "device"} ${error.message}`;
};

type DeviceTable = readonly (RingDevice | undefined)[];

export const encodeDevices = (devices: DeviceTable): (Static<typeof DeviceEntry> | null)[] =>
  devices.map((device) => {
    if (device === undefined) return null;
    const { id: _, ...entry } = device;
    return entry;
  });

export const decodeDevices = (entries: readonly (Static<typeof DeviceEntry> | null)[]): DeviceTable =>
  entries.map((entry, id) => (entry === null ? undefined : Object.freeze({ id, ...entry })));

export const encodeHashSeed = (seed: bigint): string => seed.toString(16).padStart(16, "0");
export const decodeHashSeed = (hex: string): bigint => BigInt(`0x${hex}`);

/** The format version from which on `replicas` may be a fraction. */
const FRACTION_VERSION = 2;

/** The oldest format version that can say it: what has a whole replica count is read by the Ringsteads before too. */
export const oldestFormat = (kind: FrameKind, replicas: number): FrameKind => ({
  ...kind,
  formatVersion: Number.isInteger(replicas) ? 1 : FRACTION_VERSION,
});

/** Checks the replica count of a header and gives the shape of the table that follows it. */
export const decodeShape = (
  kind: FrameKind,
  formatVersion: number,
  { partitionPower, replicas }: { partitionPower: number; replicas: number },
): TableShape => {
  if (formatVersion < FRACTION_VERSION && !Number.isInteger(replicas))
    throw damaged(kind, `has ${replicas} replicas, which its format ${formatVersion} does not know`);
  if (nearestReplicas(partitionPower, replicas) !== replicas)
    throw damaged(kind, `has ${replicas} replicas, no whole number for ${2 ** partitionPower} partitions`);
  return tableShape(partitionPower, replicas);
};

/** Writes a table of device ids as u16. */
export const writeAssignments = (view: DataView, assignments: Uint16Array): void => {
  for (let slot = 0; slot < assignments.length; slot += 1)
    view.setUint16(slot * 2, assignments[slot] ?? NO_DEVICE, true);
};

/**
 * Reads a table of device ids and checks each: it must be in `devices` (or be `NO_DEVICE`, where `emptyAllowed`), no device
 * twice in a partition, and `NO_DEVICE` where the partition has a replica fewer than others.
 */
export const readAssignments = (
  kind: FrameKind,
  view: DataView,
  table: { devices: DeviceTable; shape: TableShape; emptyAllowed: boolean },
): Uint16Array => {
  const { devices, shape, emptyAllowed } = table;
  const cellCount = cellsOf(shape);
  const assignments = new Uint16Array(cellCount);
  for (let slot = 0; slot < cellCount; slot += 1) {
    const id = view.getUint16(slot * 2, true);
    assignments[slot] = id;
    const partition = Math.floor(slot / shape.width);
    const isReplica = slot < endOfRow(shape, partition);
    if (!isReplica && id !== NO_DEVICE) throw damaged(kind, `gives partition ${partition} a replica too many`);
    if (id === NO_DEVICE && (emptyAllowed || !isReplica)) continue;
    if (devices[id] === undefined)
      throw damaged(kind, `gives partition ${partition} to device ${id}, which it does not list`);
    for (let other = partition * shape.width; other < slot; other += 1)
      if (assignments[other] === id) throw damaged(kind, `gives partition ${partition} to device ${id} twice`);
  }
  return assignments;
};

/** Entries of the table, those that are no replica included. */
export const cellsOf = ({ partitionCount, width }: TableShape): number => partitionCount * width;

/** Requires: `ring` is what `buildRing` or `decodeRing` gives. */
export const encodeRing = (ring: RingData): Uint8Array =>
  encodeFrame(
    oldestFormat(RING_FILE, ring.replicas),
    {
      version: ring.version,
      hashSeed: encodeHashSeed(ring.hashSeed),
      partitionPower: ring.partitionPower,
      replicas: ring.replicas,
      devices: encodeDevices(ring.devices),
    },
    ring.assignments.length * 2,
    (view) => writeAssignments(view, ring.assignments),
  );

/** @throws RingsteadError `ring-file-foreign`, `ring-file-damaged` or `ring-file-too-new`; whatever the bytes, nothing else. */
export const decodeRing = (bytes: Uint8Array): RingData => {
  const { formatVersion, header, body } = decodeFrame(RING_FILE, bytes);
  if (!RingHeader.Check(header))
    throw damaged(RING_FILE, `has a header that is not right: ${firstError(RingHeader, header)}`);
  const { version, hashSeed, partitionPower, replicas } = header;
  const shape = decodeShape(RING_FILE, formatVersion, header);
  if (body.length !== cellsOf(shape) * 2)
    throw damaged(RING_FILE, `has ${body.length} bytes of assignments where ${cellsOf(shape) * 2} are needed`);
  const devices = decodeDevices(header.devices);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const assignments = readAssignments(RING_FILE, view, { devices, shape, emptyAllowed: false });
  return { version, hashSeed: decodeHashSeed(hashSeed), partitionPower, replicas, devices, assignments };
};

/** The first complaint of a validator, as words for a message. */
export const firstError = (
  validator: { Errors(value: unknown): { instancePath: string; message: string }[] },
  value: unknown,
): string => {
  const [error] = validator.Errors(value);
  return error === undefined ? "it does not fit" : `${error.instancePath || "it"} ${error.message}`;
};
