import { LIMIT_NAMES, type VolumeLimits } from "../../core/qos-limits.ts";
import type { Layer, LayerId } from "../core/chains.ts";
import type { Place } from "../drivers/driver.ts";

/** A layer and where it is; a chain begins with its top. */
export type PlacedLayer = { readonly layer: Layer; readonly place: Place | BackupPlace };

/** Where a backup is served as if it were a layer, by its layer's name (`../filling/`). */
type BackupPlace = { readonly kind: "backup"; readonly socketPath: string };

/** For so long what is read of a backup waits for the process that serves it, before the reader sees an error. */
const BACKUP_PATIENCE_S = 300;
const BACKUP_OPEN_PATIENCE_S = 20;

/** The node that exports are made of: a filter that can hold requests back, upon the chain's top. */
export const VOLUME_NODE = "volume";
/** The limits of that filter; none as long as nobody sets any. */
export const THROTTLE_GROUP = "limits";

/** Every limit of the filter by QEMU's name for it, 0 for none: what is not named would stay as it was. */
export const throttleLimits = (limits: VolumeLimits): Readonly<Record<string, number>> =>
  Object.fromEntries(LIMIT_NAMES.map((name) => [name.replace("bytes", "bps"), limits[name] ?? 0]));

/** Names of nodes have at most 31 characters. */
export const nodeOf = (layer: LayerId): string => `layer-${layer}`;
const fileNodeOf = (layer: LayerId): string => `file-${layer}`;

type Node = Readonly<Record<string, unknown>>;

/** What is discarded has to be discarded all the way down: a guest may believe that it is gone, and it was another's business what it says. */
const PASS_DISCARD = { discard: "unmap" };

export type CacheMode = { readonly aio: "io_uring" | "threads"; readonly isDirect: boolean };

/** The best first. The page cache of the host would keep each block twice, and keep it from others. */
export const CACHE_MODES: readonly CacheMode[] = [
  { aio: "io_uring", isDirect: true },
  { aio: "threads", isDirect: true },
  { aio: "threads", isDirect: false },
];

const backupNode = ({ id }: Layer, socketPath: string): Node => ({
  driver: "nbd",
  "node-name": nodeOf(id),
  server: { type: "unix", path: socketPath },
  export: id,
  "reconnect-delay": BACKUP_PATIENCE_S,
  "open-timeout": BACKUP_OPEN_PATIENCE_S,
});

const fileOf = (layer: Layer, place: Place, mode: CacheMode): Node => ({
  driver: place.kind === "device" ? "host_device" : "file",
  "node-name": fileNodeOf(layer.id),
  filename: place.path,
  aio: mode.aio,
  cache: { direct: mode.isDirect },
  // Where daemons share one file, each has a range of its own, and its locks would be for the whole.
  locking: place.isShared ? "off" : "auto",
  ...PASS_DISCARD,
});

const layerNode = (placed: PlacedLayer, mode: CacheMode, below: Node | null): Node => {
  const { layer, place } = placed;
  if (place.kind === "backup") return backupNode(layer, place.socketPath);
  const name = { "node-name": nodeOf(layer.id), ...PASS_DISCARD };
  const file = fileOf(layer, place, mode);
  if (layer.format === "raw") {
    return { driver: "raw", ...name, offset: place.offset, size: layer.virtualBytes, file };
  }
  const image =
    place.sizeBytes === undefined
      ? file
      : { driver: "raw", offset: place.offset, size: place.sizeBytes, ...PASS_DISCARD, file };
  return { driver: "qcow2", ...name, file: image, backing: below };
};

/**
 * The top of a chain with all below it, as `blockdev-add` takes it. Which layer lies upon which is said here; what images say of it is not
 * looked at. Requires: `chain` has a layer.
 */
export const topNode = (chain: readonly PlacedLayer[], mode: CacheMode): Node => {
  let node: Node | null = null;
  for (const placed of chain.toReversed()) {
    const isTop = placed === chain[0];
    node = { ...layerNode(placed, mode, node), ...(isTop ? {} : { "read-only": true }) };
  }
  if (node === null) throw new Error("a volume has at least one layer");
  return node;
};

/** The node of a volume, upon that of its top. */
export const volumeNode = (top: LayerId): Node => ({
  driver: "throttle",
  "node-name": VOLUME_NODE,
  "throttle-group": THROTTLE_GROUP,
  file: nodeOf(top),
  ...PASS_DISCARD,
});

/** An overlay that is open, with what it has below it, just as it is. */
export const sameNode = (layer: LayerId, file: string, backing: string): Node => ({
  driver: "qcow2",
  "node-name": nodeOf(layer),
  file,
  backing,
  ...PASS_DISCARD,
});

/** A layer that is to be put upon a chain that is open: it reads through nothing yet. */
export const overlayNode = (placed: PlacedLayer, mode: CacheMode): Node => layerNode(placed, mode, null);
