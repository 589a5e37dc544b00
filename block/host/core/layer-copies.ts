import {
  type Chains,
  chainOf,
  changed,
  type Flatten,
  type Layer,
  type LayerCopy,
  type LayerId,
  layerOf,
  type Merge,
  pendingOf,
  reachedIn,
  type Volume,
  volumeOf,
} from "./chains.ts";

/**
 * What is to be copied between the layers of a volume, in the background: merges, where two of its layers can be one, and what makes it independent of
 * layers that others read as well. Neither shows before the record is replaced (`chains.ts`).
 */

/**
 * A volume that reads through more layers than that is made independent without having been asked to, long before no more fit: a copy that
 * cannot be taken any more is worse than one that takes its space.
 */
export const FLATTEN_ABOVE_LAYERS = 16;

/** Who needs layers: how many lie upon each that are needed themselves, and of which volume it is a snapshot. */
export type LayerUses = {
  readonly readers: ReadonlyMap<LayerId, number>;
  readonly frozenBy: ReadonlyMap<LayerId, string>;
};

export const usesOf = (chains: Chains): LayerUses => {
  const { layers, volumes } = chains;
  const reached = reachedIn(chains);
  const readers = new Map<LayerId, number>();
  // What nothing reaches reads nothing, however long its space cannot be given back.
  for (const { id, base } of layers.values())
    if (base !== undefined && reached.has(id)) readers.set(base, (readers.get(base) ?? 0) + 1);
  const frozenBy = new Map<LayerId, string>();
  for (const { id, snapshots } of volumes.values()) for (const { layer } of snapshots) frozenBy.set(layer, id);
  return { readers, frozenBy };
};

/**
 * The layers that only this volume reads, its top first: below one that several read, or that is a snapshot of another volume (which need not
 * read through it any more), nothing is its own. A backup is never its own.
 */
const ownLayersOf = (chains: Chains, volume: Volume, { readers, frozenBy }: LayerUses): readonly Layer[] => {
  const chain = chainOf(chains, volume.top);
  const isForeign = ({ id, format }: Layer): boolean =>
    format === "backup" || (readers.get(id) ?? 0) > 1 || (frozenBy.get(id) ?? volume.id) !== volume.id;
  const end = chain.findIndex((layer, index) => index > 0 && isForeign(layer));
  return end < 0 ? chain : chain.slice(0, end);
};

/**
 * What of a volume can be merged next: the lowest pair of its own layers whose lower one no snapshot is and which is as large as the upper. The
 * copy goes down, so that the layer at the bottom stays what it is, most often raw; undefined where there is nothing to merge, or while the
 * volume is being changed.
 */
const mergeOf = (chains: Chains, volumeId: string, uses: LayerUses = usesOf(chains)): Merge | undefined => {
  const volume = chains.volumes.get(volumeId);
  if (volume === undefined || pendingOf(chains, volumeId) !== undefined) return undefined;
  let found: Merge | undefined;
  const own = ownLayersOf(chains, volume, uses);
  for (const [index, lower] of own.entries()) {
    const upper = own[index - 1];
    if (upper === undefined || uses.frozenBy.has(lower.id)) continue;
    if (lower.virtualBytes >= upper.virtualBytes) found = { upper: upper.id, lower: lower.id };
  }
  return found;
};

/** Where the layers of others begin that a volume reads through; undefined where there are none. */
const sharedBelow = (chains: Chains, volume: Volume, uses: LayerUses): Flatten | undefined => {
  const lowest = ownLayersOf(chains, volume, uses).at(-1);
  return lowest?.base === undefined ? undefined : { layer: lowest.id, base: lowest.base };
};

/**
 * The layer directly upon the backup that the volume reads through: never one above it, which would leave snapshots between them upon the backup for ever.
 * Where others read it as well it waits for them to be gone.
 */
const fillingOf = (chains: Chains, volume: Volume, uses: LayerUses): Flatten | undefined => {
  const lowest = ownLayersOf(chains, volume, uses).at(-1);
  if (lowest?.base === undefined || layerOf(chains, lowest.base).format !== "backup") return undefined;
  return { layer: lowest.id, base: lowest.base };
};

/** What is to be copied for the volume to be independent of others, where that was asked for, its chain is long, or it reads through a backup. */
const flattenOf = (chains: Chains, volumeId: string, uses: LayerUses): Flatten | undefined => {
  const volume = chains.volumes.get(volumeId);
  if (volume === undefined || pendingOf(chains, volumeId) !== undefined) return undefined;
  const chain = chainOf(chains, volume.top);
  if (chain.at(-1)?.format === "backup") return fillingOf(chains, volume, uses);
  const isNeeded = chain.length > FLATTEN_ABOVE_LAYERS;
  if (!isNeeded && !chain.some(({ id }) => id === volume.leaving)) return undefined;
  const found = sharedBelow(chains, volume, uses);
  if (found === undefined || isNeeded) return found;
  // What it is to leave may be its own meanwhile, because the others are gone.
  return chainOf(chains, found.base).some(({ id }) => id === volume.leaving) ? found : undefined;
};

/** What is to be copied next for the volume; merges first, since they free space and the other takes it. */
export const copyOf = (chains: Chains, volumeId: string, uses: LayerUses = usesOf(chains)): LayerCopy | undefined => {
  const merge = mergeOf(chains, volumeId, uses);
  if (merge !== undefined) return { kind: "merge", ...merge };
  const flatten = flattenOf(chains, volumeId, uses);
  return flatten === undefined ? undefined : { kind: "flatten", ...flatten };
};

/** Whether the volume reads through no layer that another volume or its snapshots need. Errors: "no-such-volume". */
export const isFlat = (chains: Chains, volumeId: string): boolean =>
  sharedBelow(chains, volumeOf(chains, volumeId), usesOf(chains)) === undefined;

/** Whether some layer that is needed is read from that backup. */
export const isReadFrom = (chains: Chains, backupId: string): boolean =>
  [...reachedIn(chains)].some((id) => layerOf(chains, id).backup?.backupId === backupId);

/** Volumes that read through a layer of that backup. */
export const readersOf = (chains: Chains, backupId: string): readonly string[] =>
  [...chains.volumes.values()]
    .filter(({ top }) => chainOf(chains, top).at(-1)?.backup?.backupId === backupId)
    .map(({ id }) => id);

/** The chains with the wish that the volume be independent of others; the same ones where it is. Errors: "no-such-volume". */
export const askFlatten = (chains: Chains, volumeId: string): Chains => {
  const volume = volumeOf(chains, volumeId);
  const leaving = sharedBelow(chains, volume, usesOf(chains))?.base;
  if (leaving === undefined || leaving === volume.leaving) return chains;
  return { ...chains, volumes: changed(chains.volumes, { ...volume, leaving }) };
};

const merged = (chains: Chains, volumeId: string, merge: Merge): Chains => {
  const volume = volumeOf(chains, volumeId);
  const { upper, lower } = merge;
  const moved = (layer: LayerId): LayerId => (layer === upper ? lower : layer);
  const layers = [...chains.layers.values()]
    .filter(({ base }) => base === upper)
    .map((layer) => ({ ...layer, base: lower }));
  const snapshots = volume.snapshots.map((snapshot) => ({ ...snapshot, layer: moved(snapshot.layer) }));
  return {
    layers: changed(chains.layers, ...layers),
    volumes: changed(chains.volumes, { ...volume, top: moved(volume.top), snapshots }),
    pending: [...chains.pending, { kind: "merge", stage: "made", volumeId, upper, lower }],
  };
};

const flattened = (chains: Chains, volumeId: string, { layer, base }: Flatten): Chains => {
  const { leaving: _, ...volume } = volumeOf(chains, volumeId);
  const { base: __, ...independent } = layerOf(chains, layer);
  return {
    layers: changed(chains.layers, independent),
    volumes: changed(chains.volumes, volume),
    pending: [...chains.pending, { kind: "flatten", stage: "made", volumeId, layer, base }],
  };
};

/** The chains once all is copied. Requires: `copy` is `copyOf` this volume. */
export const copied = (chains: Chains, volumeId: string, copy: LayerCopy): Chains =>
  copy.kind === "merge" ? merged(chains, volumeId, copy) : flattened(chains, volumeId, copy);

/** Whether both are the same layers, for the same end. */
export const isSameCopy = (one: LayerCopy | undefined, other: LayerCopy | undefined): boolean => {
  if (one?.kind === "merge" && other?.kind === "merge") return one.upper === other.upper && one.lower === other.lower;
  if (one?.kind !== "flatten" || other?.kind !== "flatten") return false;
  return one.layer === other.layer && one.base === other.base;
};
