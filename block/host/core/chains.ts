import { RingsteadError } from "../../../common/errors.ts";

/**
 * Which layers a host has, and which volume reads through which of them.
 *
 *     volume ──top──▶ layer ──base──▶ layer ──base──▶ … ──▶ raw or qcow2 layer without a base
 *     snapshot ─────────────────────────▲
 *
 * Only a top is ever written. What is below it is frozen, so that any number of layers may share it; a layer that nobody reaches any more is
 * garbage, erased and then forgotten. A change replaces the written record up to three times, with work between:
 *
 *     begin ──▶ making ──new layers are made──▶ made ──the daemon switches to them, the top grows──▶ finish: the record says so
 *                 └─ failed ──▶ abandon ◀── refused, and nothing was switched ─┘
 *
 * A frozen layer that only the one above it reads is merged with that one: what is in the upper is copied into the lower, long before anything is
 * written. As long as the upper lies upon it, what is copied shows nowhere, so that it may be interrupted, repeated or left at any point. Once
 * both are alike, one replacement of the record takes the upper out, as a change in the stage `made`: daemons leave it, then it is garbage.
 *
 * The other way round, a volume is made independent of layers that others read as well: what the lowest layer of its own does not have is copied
 * up into it, from all below. That shows nowhere either, and once all is there, one replacement of the record takes away what is below.
 *
 * A layer directly upon a backup is filled from it in that way. Whatever lies upon a backup is in the chain of its volume's top, so that a restoration
 * ends: no volume is made of what is being filled, a volume is restored anew only once its snapshots have all of the backup before, and nothing but the
 * layer directly upon the backup is cut off it.
 *
 * Whoever finds a change that was begun goes on where its stage says. `making` may be done again from the start: no daemon has the new layers
 * yet. From `made` on a daemon may have bytes in them that were acknowledged, so they are never made again, and the change is always finished.
 */
export type Chains = {
  readonly layers: ReadonlyMap<LayerId, Layer>;
  readonly volumes: ReadonlyMap<string, Volume>;
  /** At most one of each volume. */
  readonly pending: readonly Pending[];
};

/** 20 hexadecimal digits, chosen at random: part of names on disks and in daemons, which take at most 31 characters. */
export type LayerId = string;

export type Layer = {
  readonly id: LayerId;
  readonly pool: string;
  /** `backup`: no space of any pool, but a backup in the object store that is read as if it were here. */
  readonly format: "raw" | "qcow2" | "backup";
  /** What it may hold; beyond that it reads as zeros. */
  readonly virtualBytes: number;
  readonly base?: LayerId;
  /** Of a layer of format `backup`. */
  readonly backup?: BackupId;
};

/** A backup, and the project in whose container it is. */
export type BackupId = { readonly projectId: string; readonly backupId: string };

type Snapshot = { readonly id: string; readonly layer: LayerId; readonly sizeBytes: number };

export type Volume = {
  readonly id: string;
  readonly pool: string;
  readonly sizeBytes: number;
  readonly top: LayerId;
  /** Oldest first. */
  readonly snapshots: readonly Snapshot[];
  /** A layer of others that it is to read through no longer; of no meaning once it does not. */
  readonly leaving?: LayerId;
  /** The last restoration of it that was begun here: it is not begun again. */
  readonly restorationId?: string;
};

/** A change that was begun and not finished. New layers are in `Chains.layers` already. */
export type Pending = { readonly stage: "making" | "made" } & Change;

type Change =
  | { readonly kind: "create"; readonly volumeId: string; readonly sizeBytes: number; readonly layer: LayerId }
  /** A copy of a volume as it is now: its top is frozen, both go on upon layers of their own. */
  | {
      readonly kind: "clone";
      readonly volumeId: string;
      readonly sizeBytes: number;
      readonly layer: LayerId;
      readonly sourceId: string;
      readonly overlay: LayerId;
    }
  | {
      readonly kind: "snapshot";
      readonly volumeId: string;
      readonly snapshotId: string;
      readonly overlay: LayerId;
    }
  /** Without `overlay` the top itself grows; with it, where it cannot, a larger layer is put upon it. */
  | { readonly kind: "extend"; readonly volumeId: string; readonly sizeBytes: number; readonly overlay?: LayerId }
  | { readonly kind: "revert"; readonly volumeId: string; readonly snapshotId: string; readonly overlay: LayerId }
  /** The volume reads as a backup does, through `remote`, until `overlay` has all of it. */
  | {
      readonly kind: "restore";
      readonly volumeId: string;
      readonly restorationId: string;
      readonly remote: LayerId;
      readonly overlay: LayerId;
    }
  /** `upper` is in `lower` and in no chain any more; a daemon may still have it open. */
  | ({ readonly kind: "merge"; readonly volumeId: string } & Merge)
  /** `layer` has all that it read through `base`, which it does not lie upon any more; a daemon may still have that open. */
  | ({ readonly kind: "flatten"; readonly volumeId: string } & Flatten);

/** Two layers of one volume, the one directly upon the other, that can be one: `lower`. */
export type Merge = { readonly upper: LayerId; readonly lower: LayerId };

/** The lowest layer that is a volume's own, and what that lies upon. */
export type Flatten = { readonly layer: LayerId; readonly base: LayerId };

/** What a daemon copies between layers of one volume, in the background. */
export type LayerCopy = ({ readonly kind: "merge" } & Merge) | ({ readonly kind: "flatten" } & Flatten);

/** What a change does once its layers are made; doing it twice is doing it once. */
export type Effect =
  /** The daemon that exports the volume, where one does, goes on upon `layer`: at once, or with its exports closed for a moment. */
  | { readonly kind: "switch"; readonly volumeId: string; readonly layer: LayerId; readonly isLarger: boolean }
  /** The daemon that exports the volume, where one does, reads and writes `lower` in place of `upper` and closes that. */
  | ({ readonly kind: "leave"; readonly volumeId: string; readonly isTop: boolean } & Merge)
  /** The same daemon reads nothing through `layer` any more, and closes what is below. */
  | ({ readonly kind: "cut"; readonly volumeId: string } & Flatten)
  /** The top takes `sizeBytes`, or answers that it cannot grow where it is: then nothing was changed. */
  | { readonly kind: "grow"; readonly volumeId: string; readonly layer: LayerId; readonly sizeBytes: number }
  | { readonly kind: "none" };

/** Layers that one read may have to pass through: each costs a look into its tables, and a daemon an open file. */
const CHAIN_LIMIT = 32;

export const NO_CHAINS: Chains = { layers: new Map(), volumes: new Map(), pending: [] };

/** The map with these in it, by their ids. */
export const changed = <Value>(map: ReadonlyMap<string, Value>, ...values: readonly (Value & { id: string })[]) => {
  const copy = new Map(map);
  for (const value of values) copy.set(value.id, value);
  return copy;
};

const unknown = (volumeId: string): never => {
  throw new RingsteadError("no-such-volume", `there is no volume ${volumeId} on this host`);
};

/** Errors: "no-such-volume". */
export const volumeOf = (chains: Chains, volumeId: string): Volume => chains.volumes.get(volumeId) ?? unknown(volumeId);

export const layerOf = (chains: Chains, id: LayerId): Layer => {
  const layer = chains.layers.get(id);
  if (layer === undefined) throw new Error(`layer ${id} is in no record`);
  return layer;
};

/** The layer and what it reads through, itself first. */
export const chainOf = (chains: Chains, top: LayerId): readonly Layer[] => {
  const chain: Layer[] = [];
  for (let id: LayerId | undefined = top; id !== undefined; ) {
    const layer = layerOf(chains, id);
    chain.push(layer);
    id = layer.base;
  }
  return chain;
};

/** A change that concerns this volume, its own or that of a copy that is made of it. */
export const pendingOf = (chains: Chains, volumeId: string): Pending | undefined =>
  chains.pending.find(
    (pending) => pending.volumeId === volumeId || (pending.kind === "clone" && pending.sourceId === volumeId),
  );

const begun = (chains: Chains, change: Change, ...layers: readonly Layer[]): Chains => {
  const pending: Pending = { ...change, stage: "making" };
  for (const id of pending.kind === "clone" ? [pending.volumeId, pending.sourceId] : [pending.volumeId]) {
    if (pendingOf(chains, id) !== undefined) throw new Error(`volume ${id} is being changed`);
  }
  for (const layer of layers) {
    // What lies upon another new one lies upon nothing else.
    if (layer.base !== undefined && chains.layers.has(layer.base) && chainOf(chains, layer.base).length >= CHAIN_LIMIT)
      throw new RingsteadError("chain-too-long", `more than ${CHAIN_LIMIT} layers lie upon one another`);
  }
  return { ...chains, layers: changed(chains.layers, ...layers), pending: [...chains.pending, pending] };
};

export type WantedVolume = { readonly volumeId: string; readonly pool: string; readonly sizeBytes: number };

/** A volume that reads as zeros. */
export const beginCreate = (chains: Chains, wanted: WantedVolume, id: LayerId): Chains =>
  begun(
    chains,
    { kind: "create", volumeId: wanted.volumeId, sizeBytes: wanted.sizeBytes, layer: id },
    { id, pool: wanted.pool, format: "raw", virtualBytes: wanted.sizeBytes },
  );

const noSnapshot = (snapshotId: string): never => {
  throw new RingsteadError("no-such-snapshot", `there is no snapshot ${snapshotId} of that volume on this host`);
};

const overlayOn = (chains: Chains, id: LayerId, base: LayerId, virtualBytes: number): Layer => ({
  id,
  pool: layerOf(chains, base).pool,
  format: "qcow2",
  virtualBytes,
  base,
});

const refuseSmaller = (sizeBytes: number, sourceBytes: number): void => {
  if (sizeBytes >= sourceBytes) return;
  throw new RingsteadError("volume-shrinks", `its source has ${sourceBytes} bytes, and it should have ${sizeBytes}`);
};

/** It lies upon a backup, and has not all of it yet. */
const isFilling = (chains: Chains, layer: LayerId): boolean => chainOf(chains, layer).at(-1)?.format === "backup";

/** A layer that several read is nobody's to fill, and so would never be without the backup below it. */
const refuseFilling = (chains: Chains, layer: LayerId): void => {
  if (!isFilling(chains, layer)) return;
  throw new RingsteadError("source-filling", "what it is to be made of is still being filled from a backup");
};

/**
 * A volume that reads as a snapshot does. It lies in the pool of the snapshot. Errors: "no-such-source", "volume-shrinks", "source-filling",
 * "chain-too-long".
 */
export const beginCreateFromSnapshot = (
  chains: Chains,
  wanted: WantedVolume,
  sourceId: string,
  snapshotId: string,
  id: LayerId,
): Chains => {
  const snapshot = chains.volumes.get(sourceId)?.snapshots.find((one) => one.id === snapshotId);
  if (snapshot === undefined) throw new RingsteadError("no-such-source", `there is no snapshot ${snapshotId} here`);
  refuseSmaller(wanted.sizeBytes, snapshot.sizeBytes);
  refuseFilling(chains, snapshot.layer);
  const change = { kind: "create", volumeId: wanted.volumeId, sizeBytes: wanted.sizeBytes, layer: id } as const;
  return begun(chains, change, overlayOn(chains, id, snapshot.layer, wanted.sizeBytes));
};

/** A copy of another volume as it is now. Errors: "no-such-source", "volume-shrinks", "source-filling", "chain-too-long". */
export const beginClone = (
  chains: Chains,
  wanted: WantedVolume,
  sourceId: string,
  ids: readonly [own: LayerId, overlay: LayerId],
): Chains => {
  const source = chains.volumes.get(sourceId);
  if (source === undefined) throw new RingsteadError("no-such-source", `there is no volume ${sourceId} on this host`);
  refuseSmaller(wanted.sizeBytes, source.sizeBytes);
  refuseFilling(chains, source.top);
  const { volumeId, sizeBytes } = wanted;
  const [layer, overlay] = ids;
  return begun(
    chains,
    { kind: "clone", volumeId, sizeBytes, layer, sourceId, overlay },
    overlayOn(chains, layer, source.top, sizeBytes),
    overlayOn(chains, overlay, source.top, source.sizeBytes),
  );
};

/** Errors: "no-such-volume", "chain-too-long". */
export const beginSnapshot = (chains: Chains, volumeId: string, snapshotId: string, overlay: LayerId): Chains => {
  const volume = volumeOf(chains, volumeId);
  return begun(
    chains,
    { kind: "snapshot", volumeId, snapshotId, overlay },
    overlayOn(chains, overlay, volume.top, volume.sizeBytes),
  );
};

/** Errors: "no-such-volume", "volume-shrinks". */
export const beginExtend = (chains: Chains, volumeId: string, sizeBytes: number): Chains => {
  const volume = volumeOf(chains, volumeId);
  if (sizeBytes < volume.sizeBytes)
    throw new RingsteadError("volume-shrinks", `volume ${volumeId} has ${volume.sizeBytes} bytes already`);
  return begun(chains, { kind: "extend", volumeId, sizeBytes });
};

/** An extension whose top cannot grow where it is goes on with a larger layer upon it. Errors: "chain-too-long". */
export const extendByOverlay = (chains: Chains, volumeId: string, overlay: LayerId): Chains => {
  const pending = pendingOf(chains, volumeId);
  if (pending?.kind !== "extend") throw new Error(`volume ${volumeId} is not being extended`);
  const without = { ...chains, pending: chains.pending.filter((one) => one !== pending) };
  const { top } = volumeOf(chains, volumeId);
  const { kind, sizeBytes } = pending;
  return begun(without, { kind, volumeId, sizeBytes, overlay }, overlayOn(chains, overlay, top, sizeBytes));
};

/** Requires: it is not exported. Errors: "no-such-volume", "no-such-snapshot", also where it is not the latest. */
export const beginRevert = (chains: Chains, volumeId: string, snapshotId: string, overlay: LayerId): Chains => {
  const volume = volumeOf(chains, volumeId);
  const latest = volume.snapshots.at(-1);
  if (latest?.id !== snapshotId) return noSnapshot(snapshotId);
  return begun(
    chains,
    { kind: "revert", volumeId, snapshotId, overlay },
    overlayOn(chains, overlay, latest.layer, volume.sizeBytes),
  );
};

export type WantedRestoration = BackupId & {
  readonly volumeId: string;
  readonly restorationId: string;
  /** Of the volume that was backed up. */
  readonly sizeBytes: number;
};

/**
 * Requires: it is not exported. Errors: "no-such-volume", "volume-shrinks" where the backup is larger than the volume, "snapshot-filling" where a
 * snapshot lies upon another backup: it is filled with the volume that reads through it, and none would.
 */
export const beginRestore = (
  chains: Chains,
  { volumeId, restorationId, projectId, backupId, sizeBytes }: WantedRestoration,
  ids: readonly [remote: LayerId, overlay: LayerId],
): Chains => {
  const volume = volumeOf(chains, volumeId);
  refuseSmaller(volume.sizeBytes, sizeBytes);
  if (volume.snapshots.some(({ layer }) => isFilling(chains, layer)))
    throw new RingsteadError(
      "snapshot-filling",
      `a snapshot of volume ${volumeId} is still being filled from a backup`,
    );
  const [remote, overlay] = ids;
  const { pool } = layerOf(chains, volume.top);
  return begun(
    chains,
    { kind: "restore", volumeId, restorationId, remote, overlay },
    { id: remote, pool, format: "backup", virtualBytes: sizeBytes, backup: { projectId, backupId } },
    { id: overlay, pool, format: "qcow2", virtualBytes: volume.sizeBytes, base: remote },
  );
};

/** The layers that a change needs, in the order in which they are made. */
export const newLayersOf = (pending: Pending): readonly LayerId[] => {
  switch (pending.kind) {
    case "create":
      return [pending.layer];
    case "clone":
      return [pending.layer, pending.overlay];
    case "snapshot":
    case "revert":
      return [pending.overlay];
    case "restore":
      return [pending.remote, pending.overlay];
    case "extend":
      return pending.overlay === undefined ? [] : [pending.overlay];
    case "merge":
    case "flatten":
      return [];
  }
};

/** The same chains once the layers of `pending` are made, and what they are to be used for may begin. */
export const made = (chains: Chains, pending: Pending): Chains => ({
  ...chains,
  pending: chains.pending.map((one) => (one === pending ? { ...one, stage: "made" } : one)),
});

/** What is left to do once its layers are made. */
export const effectOf = (chains: Chains, pending: Pending): Effect => {
  const { volumeId } = pending;
  switch (pending.kind) {
    case "create":
    case "revert":
    case "restore":
      return { kind: "none" };
    case "clone":
      return { kind: "switch", volumeId: pending.sourceId, layer: pending.overlay, isLarger: false };
    case "snapshot":
      return { kind: "switch", volumeId, layer: pending.overlay, isLarger: false };
    case "extend": {
      const { overlay, sizeBytes } = pending;
      if (overlay !== undefined) return { kind: "switch", volumeId, layer: overlay, isLarger: true };
      return { kind: "grow", volumeId, layer: volumeOf(chains, volumeId).top, sizeBytes };
    }
    case "merge": {
      const { upper, lower } = pending;
      return { kind: "leave", volumeId, upper, lower, isTop: volumeOf(chains, volumeId).top === lower };
    }
    case "flatten":
      return { kind: "cut", volumeId, layer: pending.layer, base: pending.base };
  }
};

/** The chains once the work of `pending` is done. */
export const finish = (chains: Chains, pending: Pending): Chains => {
  const rest = chains.pending.filter((one) => one !== pending);
  const put = (...volumes: readonly Volume[]): Chains => ({
    ...chains,
    pending: rest,
    volumes: changed(chains.volumes, ...volumes),
  });
  const { volumeId } = pending;
  switch (pending.kind) {
    case "create":
    case "clone": {
      const { sizeBytes, layer } = pending;
      const own = { id: volumeId, pool: layerOf(chains, layer).pool, sizeBytes, top: layer, snapshots: [] };
      if (pending.kind === "create") return put(own);
      return put({ ...volumeOf(chains, pending.sourceId), top: pending.overlay }, own);
    }
    case "snapshot": {
      const volume = volumeOf(chains, volumeId);
      const frozen = { id: pending.snapshotId, layer: volume.top, sizeBytes: volume.sizeBytes };
      return put({ ...volume, top: pending.overlay, snapshots: [...volume.snapshots, frozen] });
    }
    case "extend": {
      const volume = volumeOf(chains, volumeId);
      const { sizeBytes, overlay } = pending;
      if (overlay !== undefined) return put({ ...volume, sizeBytes, top: overlay });
      const after = put({ ...volume, sizeBytes });
      const top = layerOf(chains, volume.top);
      return { ...after, layers: changed(after.layers, { ...top, virtualBytes: sizeBytes }) };
    }
    case "revert":
      return put({ ...volumeOf(chains, volumeId), top: pending.overlay });
    case "restore": {
      const { overlay, restorationId } = pending;
      return put({ ...volumeOf(chains, volumeId), top: overlay, restorationId });
    }
    case "merge":
    case "flatten":
      return { ...chains, pending: rest };
  }
};

/** Gives up a change of which it is certain that no daemon has its layers: what was made for it is garbage. */
export const abandon = (chains: Chains, pending: Pending): Chains => ({
  ...chains,
  pending: chains.pending.filter((one) => one !== pending),
});

/** Forgets a volume. Errors: "volume-in-use" while it has snapshots. */
export const withoutVolume = (chains: Chains, volumeId: string): Chains => {
  const volume = chains.volumes.get(volumeId);
  if (volume === undefined) return chains;
  if (volume.snapshots.length > 0)
    throw new RingsteadError("volume-in-use", `volume ${volumeId} has ${volume.snapshots.length} snapshots`);
  const volumes = new Map(chains.volumes);
  volumes.delete(volumeId);
  return { ...chains, volumes };
};

/** Forgets a snapshot; layers that others read through stay. */
export const withoutSnapshot = (chains: Chains, volumeId: string, snapshotId: string): Chains => {
  const volume = chains.volumes.get(volumeId);
  if (volume === undefined) return chains;
  const snapshots = volume.snapshots.filter(({ id }) => id !== snapshotId);
  return { ...chains, volumes: changed(chains.volumes, { ...volume, snapshots }) };
};

/** Layers that a change needs, whatever else does: those that it makes, or that a daemon may have open until it has ended. */
const heldBy = (pending: Pending): readonly LayerId[] => {
  if (pending.kind === "merge") return [pending.upper];
  return pending.kind === "flatten" ? [pending.base] : newLayersOf(pending);
};

/** Layers that a volume, a snapshot or a change that is under way needs: all others are garbage, and nobody has them open. */
export const reachedIn = (chains: Chains): ReadonlySet<LayerId> => {
  const reached = new Set<LayerId>();
  const reach = (top: LayerId): void => {
    for (const { id } of chainOf(chains, top)) reached.add(id);
  };
  for (const { top, snapshots } of chains.volumes.values()) {
    reach(top);
    for (const { layer } of snapshots) reach(layer);
  }
  for (const pending of chains.pending) for (const id of heldBy(pending)) reach(id);
  return reached;
};

/** Layers that nothing reaches, those upon others first: a base goes after all that was read through it. */
export const garbageOf = (chains: Chains): readonly Layer[] => {
  const reached = reachedIn(chains);
  const garbage = [...chains.layers.values()].filter(({ id }) => !reached.has(id));
  const depths = new Map(garbage.map(({ id }) => [id, chainOf(chains, id).length]));
  return garbage.toSorted((one, other) => (depths.get(other.id) ?? 0) - (depths.get(one.id) ?? 0));
};

/** Forgets a layer whose space was given back. */
export const withoutLayer = (chains: Chains, id: LayerId): Chains => {
  const layers = new Map(chains.layers);
  layers.delete(id);
  return { ...chains, layers };
};
