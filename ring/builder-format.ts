import { Type } from "typebox";
import { Compile } from "typebox/compile";
import type { Builder } from "./builder.ts";
import { RING_LIMITS } from "./device.ts";
import { damaged, decodeFrame, encodeFrame, type FrameKind } from "./frame.ts";
import {
  cellsOf,
  decodeDevices,
  decodeHashSeed,
  decodeShape,
  encodeDevices,
  encodeHashSeed,
  firstError,
  oldestFormat,
  readAssignments,
  sharedHeaderFields,
  writeAssignments,
} from "./format.ts";

/** The builder file, see FORMAT.md. */
export const BUILDER_FILE: FrameKind = { name: "ring builder file", magic: "RSTDBLDR", formatVersion: 2 };

const BuilderHeader = Compile(
  Type.Object(
    {
      ...sharedHeaderFields,
      minPartHours: Type.Integer({ minimum: 0, maximum: RING_LIMITS.minPartHoursMax }),
      overload: Type.Number({ minimum: 0, maximum: RING_LIMITS.overloadMax }),
    },
    { additionalProperties: false },
  ),
);

export const encodeBuilder = (builder: Builder): Uint8Array => {
  const assignmentBytes = builder.assignments.length * 2;
  const header = {
    version: builder.version,
    hashSeed: encodeHashSeed(builder.hashSeed),
    partitionPower: builder.partitionPower,
    replicas: builder.replicas,
    minPartHours: builder.minPartHours,
    overload: builder.overload,
    devices: encodeDevices(builder.devices),
  };
  return encodeFrame(
    oldestFormat(BUILDER_FILE, builder.replicas),
    header,
    assignmentBytes + builder.movedAtSeconds.length * 4,
    (view) => {
      writeAssignments(view, builder.assignments);
      for (const [partition, second] of builder.movedAtSeconds.entries())
        view.setUint32(assignmentBytes + partition * 4, second, true);
    },
  );
};

/** @throws RingsteadError `ring-file-foreign`, `ring-file-damaged` or `ring-file-too-new`; whatever the bytes, nothing else. */
export const decodeBuilder = (bytes: Uint8Array): Builder => {
  const { formatVersion, header, body } = decodeFrame(BUILDER_FILE, bytes);
  if (!BuilderHeader.Check(header))
    throw damaged(BUILDER_FILE, `has a header that is not right: ${firstError(BuilderHeader, header)}`);
  const { version, hashSeed, partitionPower, replicas, minPartHours, overload } = header;
  const shape = decodeShape(BUILDER_FILE, formatVersion, header);
  const { partitionCount } = shape;
  const assignmentBytes = cellsOf(shape) * 2;
  const bodyBytes = assignmentBytes + partitionCount * 4;
  if (body.length !== bodyBytes)
    throw damaged(BUILDER_FILE, `has ${body.length} bytes of tables where ${bodyBytes} are needed`);
  const devices = decodeDevices(header.devices);
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const assignments = readAssignments(BUILDER_FILE, view, { devices, shape, emptyAllowed: true });
  const movedAtSeconds = new Uint32Array(partitionCount);
  for (let partition = 0; partition < partitionCount; partition += 1)
    movedAtSeconds[partition] = view.getUint32(assignmentBytes + partition * 4, true);
  return {
    version,
    hashSeed: decodeHashSeed(hashSeed),
    partitionPower,
    replicas,
    minPartHours,
    overload,
    devices: [...devices],
    assignments,
    movedAtSeconds,
  };
};
