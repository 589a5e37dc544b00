import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { RingsteadError } from "../common/errors.ts";
import type { SchedulerSettings } from "./core/scheduler.ts";

const GIB = 1024 ** 3;

/** The table `[block]` of cluster.toml. */
const blockKeys = Type.Object(
  {
    /** Name of the zone that this installation's volumes are in; Cinder's default. */
    availability_zone: Type.Optional(Type.String({ pattern: "^[^\\s/]{1,255}$" })),
    /** The type of volumes that name none; made at the first start. */
    default_volume_type: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    /** Per cent of a pool that are kept free: no volume is placed there beyond it. */
    reserved_percentage: Type.Optional(Type.Integer({ minimum: 0, maximum: 100 })),
    /** How many times what it has a thin pool may promise to its volumes. */
    max_over_subscription_ratio: Type.Optional(Type.Number({ minimum: 1, maximum: 1_000 })),
    /** Most things in one page of a list, also where a client asks for more. */
    list_limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000 })),
    /** How volumes are connected whose type does not say: over NBD, or over iSCSI to connectors that name an initiator. */
    storage_protocol: Type.Optional(Type.Enum(["nbd", "iSCSI"])),
    /** How chunks of backups are compressed. */
    backup_compression: Type.Optional(Type.Enum(["none", "zstd"])),
    /** Chunks of backups are encrypted, with a key of their project that DIR/block/backup.key gives. */
    backup_encryption: Type.Optional(Type.Boolean()),
    /** Seconds for which a chunk that no backup needs is kept: at least as long as a request may be on its way. */
    backup_grace_seconds: Type.Optional(Type.Integer({ minimum: 0, maximum: 2_592_000 })),
    /** A volume may be used while it is filled from the backup that it is restored from. */
    lazy_restore: Type.Optional(Type.Boolean()),
    /** Where hosts keep volumes: `lvm` in a volume group, `file` in files. Default: `lvm` where root and LVM are there, else `file`. */
    drivers: Type.Optional(Type.Array(Type.Enum(["lvm", "file"]), { minItems: 1, maxItems: 2, uniqueItems: true })),
    /** A volume group of the operator's, which is a pool of that name; it has to be there. Default: one is made in DIR/block-host/pool.img. */
    volume_group: Type.Optional(Type.String({ pattern: "^(?!(?:lvm|file)$)[A-Za-z0-9_+][A-Za-z0-9_+.-]{0,63}$" })),
    /** How `lvm` gives space: when it is written to (thin), when it is asked for (thick), or thin where kernel and group can. */
    lvm_type: Type.Optional(Type.Enum(["auto", "thin", "thick"])),
    /** GiB that DIR/block-host/pool.img may have; it is made once, as long as its file system has room unless this is less. */
    pool_size_gib: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_048_576 })),
  },
  { additionalProperties: false },
);

/** What the block service is told, with its defaults. Frozen. */
export type BlockConfig = {
  readonly availabilityZone: string;
  readonly defaultVolumeType: string;
  readonly scheduler: SchedulerSettings;
  readonly listLimit: number;
  readonly storageProtocol: "nbd" | "iSCSI";
  readonly backup: BackupConfig;
  readonly pools: PoolsConfig;
};

export type PoolsConfig = {
  /** Undefined where the machine decides. */
  readonly drivers: readonly ("lvm" | "file")[] | undefined;
  /** Undefined where a pool in a file is to be made. */
  readonly volumeGroup: string | undefined;
  readonly lvmType: "auto" | "thin" | "thick";
  /** Of the pool in a file. */
  readonly sizeLimitBytes: number;
};

export type BackupConfig = {
  readonly compression: "none" | "zstd";
  readonly isEncrypted: boolean;
  readonly graceMs: number;
  readonly isRestoredLazily: boolean;
};

const check = Compile(blockKeys);

/** The table `[block]`, checked and completed. Throws RingsteadError `invalid-config`. */
export const parseBlockConfig = (table: unknown): BlockConfig => {
  const value: unknown = table ?? {};
  if (!check.Check(value)) {
    const [problem] = check.Errors(value);
    const words = `${problem?.instancePath.slice(1) ?? ""} ${problem?.message ?? "is not understood"}`.trim();
    throw new RingsteadError("invalid-config", `cluster.toml: [block]: ${words}`);
  }
  const keys: Static<typeof blockKeys> = value;
  return Object.freeze({
    availabilityZone: keys.availability_zone ?? "nova",
    defaultVolumeType: keys.default_volume_type ?? "__DEFAULT__",
    scheduler: Object.freeze({
      reservedPercentage: keys.reserved_percentage ?? 0,
      maxOverSubscriptionRatio: keys.max_over_subscription_ratio ?? 20,
    }),
    listLimit: keys.list_limit ?? 1_000,
    storageProtocol: keys.storage_protocol ?? "nbd",
    backup: Object.freeze({
      compression: keys.backup_compression ?? "zstd",
      isEncrypted: keys.backup_encryption ?? false,
      graceMs: (keys.backup_grace_seconds ?? 3_600) * 1_000,
      isRestoredLazily: keys.lazy_restore ?? false,
    }),
    pools: Object.freeze({
      drivers: keys.drivers,
      volumeGroup: keys.volume_group,
      lvmType: keys.lvm_type ?? "auto",
      sizeLimitBytes: keys.pool_size_gib === undefined ? Number.POSITIVE_INFINITY : keys.pool_size_gib * GIB,
    }),
  });
};
