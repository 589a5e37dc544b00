import { type Static, type TSchema, Type } from "typebox";
import { Compile } from "typebox/compile";
import { RingsteadError } from "../common/errors.ts";
import { LIMIT_MAX, LIMIT_NAMES } from "./core/qos-limits.ts";
import { DATA_LIMIT_BYTES, EXTENTS_LIMIT } from "./volume-data.ts";

/*
 * Calls to a block host over common/rpc: the header of a request is `[method, argument]`, of a reply `[result]`; bodies are empty but for the bytes
 * that `readSnapshot` answers with and `writeVolume` is given. `VolumeHost` (volume-host.ts) and `VolumeData` (volume-data.ts) say what each call does
 * and which errors it answers with.
 */

/** Volumes, snapshots and attachments. Only what has this form becomes a name on a disk. */
const uuid = Type.String({ pattern: "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" });
const projectId = Type.String({ pattern: "^[A-Za-z0-9_-]{1,64}$" });
const poolName = Type.String({ minLength: 1, maxLength: 64 });
const sizeBytes = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });
const count = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const nothing = Type.Object({});
const path = Type.String({ minLength: 1, maxLength: 4_096 });

/** RFC 3720: at most 223 bytes; it becomes a word that tgtd reads. */
const initiatorName = Type.String({ pattern: "^(iqn|eui|naa)\\.[A-Za-z0-9.:_-]{1,219}$" });

/** Volumes that one message names; a host has fewer. */
const LIMITED_VOLUMES_LIMIT = 100_000;
/** What a volume may do in a second; a name that is left out limits nothing. */
export const volumeLimits = Type.Partial(
  Type.Record(Type.Enum([...LIMIT_NAMES]), Type.Integer({ minimum: 1, maximum: LIMIT_MAX })),
  { additionalProperties: false },
);

const volumeSource = Type.Union([
  Type.Object({ kind: Type.Literal("none") }),
  Type.Object({ kind: Type.Literal("snapshot"), volumeId: uuid, snapshotId: uuid }),
  Type.Object({ kind: Type.Literal("volume"), volumeId: uuid }),
]);

const poolReport = Type.Object({
  pool: poolName,
  driver: Type.Union([Type.Literal("lvm"), Type.Literal("file")]),
  totalBytes: count,
  freeBytes: count,
  provisionedBytes: count,
  volumeCount: count,
  isThin: Type.Boolean(),
  /** Left out where the pool takes volumes. */
  failure: Type.Optional(Type.String()),
});

const volumeExport = Type.Union([
  Type.Object({ kind: Type.Literal("nbd-unix"), socketPath: path, exportName: Type.String() }),
  Type.Object({
    kind: Type.Literal("nbd-tls"),
    host: Type.String(),
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    exportName: Type.String(),
    credentialFolder: path,
  }),
  Type.Object({
    kind: Type.Literal("iscsi"),
    host: Type.String(),
    port: Type.Integer({ minimum: 1, maximum: 65_535 }),
    targetName: Type.String(),
    diskNumber: count,
    username: Type.String(),
    secret: Type.String(),
  }),
]);

const runningExport = Type.Object({
  volumeId: uuid,
  attachmentIds: Type.Array(uuid),
  pid: count,
  startTime: count,
});

/** A range of a snapshot. */
const snapshotRange = { volumeId: uuid, snapshotId: uuid, offset: count, length: sizeBytes };
const writer = { volumeId: uuid, writerId: uuid };
const dataLength = Type.Integer({ minimum: 1, maximum: DATA_LIMIT_BYTES });

/** What each call is given and answers. */
const HOST_CALLS = {
  pools: { argument: nothing, result: Type.Array(poolReport, { maxItems: 64 }) },
  createVolume: {
    argument: Type.Object({ volumeId: uuid, pool: poolName, sizeBytes, source: volumeSource }),
    result: nothing,
  },
  deleteVolume: { argument: Type.Object({ volumeId: uuid }), result: nothing },
  extendVolume: { argument: Type.Object({ volumeId: uuid, sizeBytes }), result: nothing },
  createSnapshot: { argument: Type.Object({ volumeId: uuid, snapshotId: uuid }), result: nothing },
  deleteSnapshot: { argument: Type.Object({ volumeId: uuid, snapshotId: uuid }), result: nothing },
  revertVolume: { argument: Type.Object({ volumeId: uuid, snapshotId: uuid }), result: nothing },
  flattenVolume: {
    argument: Type.Object({ volumeId: uuid }),
    result: Type.Object({
      isFlat: Type.Boolean(),
      copiedShare: Type.Number({ minimum: 0, maximum: 1 }),
      /** Left out where nothing failed. */
      failure: Type.Optional(Type.String()),
    }),
  },
  exportVolume: {
    argument: Type.Object({
      volumeId: uuid,
      attachmentId: uuid,
      transport: Type.Union([Type.Literal("unix"), Type.Literal("tcp"), Type.Literal("iscsi")]),
      initiator: Type.Optional(initiatorName),
      isReadOnly: Type.Boolean(),
      isWriteThrough: Type.Optional(Type.Boolean()),
    }),
    result: volumeExport,
  },
  unexportVolume: { argument: Type.Object({ volumeId: uuid, attachmentId: Type.Optional(uuid) }), result: nothing },
  limitVolumes: {
    argument: Type.Object({
      limits: Type.Array(Type.Tuple([uuid, volumeLimits]), { maxItems: LIMITED_VOLUMES_LIMIT }),
    }),
    result: nothing,
  },
  exports: { argument: nothing, result: Type.Array(runningExport, { maxItems: 100_000 }) },
  snapshotChanges: {
    argument: Type.Object({ ...snapshotRange, baseId: Type.Optional(uuid) }),
    result: Type.Object({
      isRecorded: Type.Boolean(),
      coveredBytes: sizeBytes,
      extents: Type.Array(Type.Tuple([count, sizeBytes, Type.Boolean()]), { maxItems: EXTENTS_LIMIT }),
    }),
  },
  readSnapshot: { argument: Type.Object({ ...snapshotRange, length: dataLength }), result: nothing },
  releaseSnapshot: { argument: Type.Object({ volumeId: uuid, snapshotId: uuid }), result: nothing },
  beginWriting: { argument: Type.Object(writer), result: nothing },
  writeVolume: { argument: Type.Object({ ...writer, offset: count }), result: nothing },
  zeroVolume: { argument: Type.Object({ ...writer, offset: count, length: sizeBytes }), result: nothing },
  flushVolume: { argument: Type.Object(writer), result: nothing },
  endWriting: { argument: Type.Object(writer), result: nothing },
  restoreVolume: {
    argument: Type.Object({ volumeId: uuid, restorationId: uuid, projectId, backupId: uuid, sizeBytes }),
    result: nothing,
  },
  restoration: {
    argument: Type.Object({ backupId: uuid }),
    result: Type.Object({
      isFilled: Type.Boolean(),
      copiedShare: Type.Number({ minimum: 0, maximum: 1 }),
      /** Left out where nothing is damaged. */
      damage: Type.Optional(Type.String()),
    }),
  },
} as const satisfies Record<string, { readonly argument: TSchema; readonly result: TSchema }>;

export type HostMethod = keyof typeof HOST_CALLS;
export type HostArgument<Method extends HostMethod> = Static<(typeof HOST_CALLS)[Method]["argument"]>;
export type HostResult<Method extends HostMethod> = Static<(typeof HOST_CALLS)[Method]["result"]>;

/** A request as its host reads it. */
export type HostRequest = {
  readonly [Method in HostMethod]: { readonly method: Method; readonly argument: HostArgument<Method> };
}[HostMethod];

type Checks = { readonly argument: ReturnType<typeof Compile>; readonly result: ReturnType<typeof Compile> };
const compiled = new Map<HostMethod, Checks>();

const checksOf = (method: HostMethod): Checks => {
  let checks = compiled.get(method);
  if (checks === undefined) {
    const { argument, result } = HOST_CALLS[method];
    checks = { argument: Compile(argument), result: Compile(result) };
    compiled.set(method, checks);
  }
  return checks;
};

/** The name of the Unix socket of a node's block host: `runtimePaths(DIR).socket(BLOCK_HOST_SOCKET)`. */
export const BLOCK_HOST_SOCKET = "block-host";

/** The header of a request. */
export const encodeHostRequest = <Method extends HostMethod>(
  method: Method,
  argument: HostArgument<Method>,
): readonly unknown[] => [method, argument];

/** Reads a request's header. Throws RingsteadError `bad-message`. */
export const decodeHostRequest = ([method, argument]: readonly unknown[]): HostRequest => {
  if (typeof method !== "string" || !Object.hasOwn(HOST_CALLS, method))
    throw new RingsteadError("bad-message", "no such call to a block host");
  if (!checksOf(method as HostMethod).argument.Check(argument))
    throw new RingsteadError("bad-message", `${method} was called with something else than it takes`);
  return { method, argument } as HostRequest;
};

/** Reads a reply's header. Throws RingsteadError `bad-message`. */
export const decodeHostResult = <Method extends HostMethod>(
  method: Method,
  [result]: readonly unknown[],
): HostResult<Method> => {
  if (!checksOf(method).result.Check(result))
    throw new RingsteadError("bad-message", `the block host answered ${method} with something else than it gives`);
  return result as HostResult<Method>;
};
