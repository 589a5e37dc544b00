import { Type, type Static } from "typebox";
import { Compile } from "typebox/compile";
import { NO_DEVICE, RING_LIMITS, type RingData, type RingDevice } from "./device.ts";
import { damaged, decodeFrame, encodeFrame, type FrameKind } from "./frame.ts";

/** The ring file, see FORMAT.md. */
export const RING_FILE: FrameKind = { name: "ring file", magic: "RSTDRING", formatVersion: 1 };

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
  replicas: Type.Integer({ minimum: 1, maximum: RING_LIMITS.replicasMax }),
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

/** Writes a table of device ids as u16. */
export const writeAssignments = (view: DataView, assignments: Uint16Array): void => {
  for (let slot = 0; slot < assignments.length; slot += 1)
    view.setUint16(slot * 2, assignments[slot] ?? NO_DEVICE, true);
};

/**
 * Reads a table of device ids and checks each: it must be in `devices` (or be `NO_DEVICE`, where `emptyAllowed`), and
 * no device twice in a partition.
 */
export const readAssignments = (
  kind: FrameKind,
  view: DataView,
  table: { devices: DeviceTable; replicas: number; slotCount: number; emptyAllowed: boolean },
): Uint16Array => {
  const { devices, replicas, slotCount, emptyAllowed } = table;
  const assignments = new Uint16Array(slotCount);
  for (let slot = 0; slot < slotCount; slot += 1) {
    const id = view.getUint16(slot * 2, true);
    assignments[slot] = id;
    const partition = Math.floor(slot / replicas);
    if (id === NO_DEVICE && emptyAllowed) continue;
    if (devices[id] === undefined)
      throw damaged(kind, `gives partition ${partition} to device ${id}, which it does not list`);
    for (let other = partition * replicas; other < slot; other += 1)
      if (assignments[other] === id) throw damaged(kind, `gives partition ${partition} to device ${id} twice`);
  }
  return assignments;
};

/** Requires: `ring` is what `buildRing` or `decodeRing` gives. */
export const encodeRing = (ring: RingData): Uint8Array =>
  encodeFrame(
    RING_FILE,
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
  const { header, body } = decodeFrame(RING_FILE, bytes);
  if (!RingHeader.Check(header))
    throw damaged(RING_FILE, `has a header that is not right: ${firstError(RingHeader, header)}`);
  const { version, hashSeed, partitionPower, replicas } = header;
  const slotCount = 2 ** partitionPower * replicas;
  if (body.length !== slotCount * 2)
    throw damaged(RING_FILE, `has ${body.length} bytes of assignments where ${slotCount * 2} are needed`);
  const devices = decodeDevices(header.devices);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const assignments = readAssignments(RING_FILE, view, { devices, replicas, slotCount, emptyAllowed: false });
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
