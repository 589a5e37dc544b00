import { codeOf, RingsteadError } from "../common/errors.ts";
import { xxh64, xxh64OfString } from "../common/hash.ts";
import type { RingData } from "./device.ts";
import { ringDifference } from "./ring-difference.ts";
import { loadRing, saveRing } from "./ring-file.ts";
import type { Ring } from "./ring.ts";

/**
 * The ring of an installation says where its data is to be. Where it was when nothing had moved yet is what the ring said at the beginning: that one is
 * kept beside it, and says who keeps a partition that was never moved (epoch 0 of PROTOCOL.md section 8). Whatever rings come, it stays the same.
 */
export const baseRingPath = (ringPath: string): string => `${ringPath.replace(/\.ring$/, "")}.base`;

const loadedIfThere = (path: string): Ring | undefined => {
  try {
    return loadRing(path);
  } catch (error) {
    if (codeOf(error) === "ring-file-missing") return undefined;
    throw error;
  }
};

/** The base of the ring at `ringPath`; that ring itself, where nobody has kept one yet. @throws RingsteadError as `loadRing` does */
export const loadBaseRing = (ringPath: string): Ring => loadedIfThere(baseRingPath(ringPath)) ?? loadRing(ringPath);

/**
 * Keeps the ring at `ringPath` as its own base where there is none. A ring of a higher partition power whose replicas lie where those of the base lie takes its
 * place: nothing moves then. Requires: nothing of the installation runs. @throws RingsteadError as `loadRing` does, and as `checkTarget` for a ring that does
 * not fit the base
 */
export const keepBaseRing = (ringPath: string): void => {
  const path = baseRingPath(ringPath);
  const ring = loadRing(ringPath);
  const base = loadedIfThere(path);
  if (base === undefined) return saveRing(path, ring);
  if (!isFinerCopy(base, ring)) return checkTarget(base, ring);
  // Wanted where a device turns out to have moved under it after all.
  saveRing(`${path}.before`, base);
  saveRing(path, ring);
};

/**
 * Whether an installation that began with `base` may be given `ring`: what `checkTarget` says, and besides, for its next start, a higher partition power as long
 * as nothing ever was to move. @throws RingsteadError as `checkTarget`
 */
export const checkSuccessor = (base: RingData, ring: RingData): void => {
  if (!isFinerCopy(base, ring)) checkTarget(base, ring);
};

const isFinerCopy = (base: RingData, ring: RingData): boolean =>
  base.hashSeed === ring.hashSeed &&
  base.partitionPower < ring.partitionPower &&
  ringDifference(base, ring).moves.length === 0;

/**
 * Whether an installation that began with `base` may be brought to `target`. @throws RingsteadError `ring-foreign` where it is of another installation,
 * `ring-other-shape` where it has another number of partitions or replicas
 */
export const checkTarget = (base: RingData, target: RingData): void => {
  if (base.hashSeed !== target.hashSeed)
    throw new RingsteadError("ring-foreign", "the ring has another hash seed: it is of another installation");
  for (const what of ["partitionPower", "replicas"] as const) {
    if (base[what] === target[what]) continue;
    const words = what === "replicas" ? "replicas" : "as its partition power";
    throw new RingsteadError(
      "ring-other-shape",
      `the ring has ${target[what]} ${words}, and the installation began with ${base[what]}: that stays while data has moved or is to move`,
    );
  }
};

/** What to do about a ring file of an installation that cannot be read; `builderPath` undefined where its builder is kept elsewhere. */
export const damagedRingRemedy = (builderPath: string | undefined): string => {
  const copied = "copy it from another node or from a backup";
  if (builderPath === undefined) return copied;
  return `${copied}, or write it anew: ./scripts/ringstead ring rebalance ${builderPath} --rewrite`;
};

/** What to do where nodes have different bases. */
export const OTHER_BASE_REMEDY = "copy DIR/rings/*.base from a node that served before";

/** Tells rings apart by who keeps which partition, whatever their versions, weights and devices that keep nothing: 16 hexadecimal digits. */
export const placementIdentity = ({ assignments, devices, hashSeed, partitionPower, replicas }: RingData): string => {
  const used = [...new Set(assignments)].toSorted((left, right) => left - right);
  const names = used.map((id) => [id, devices[id]?.node ?? "", devices[id]?.device ?? ""]);
  const seed = xxh64OfString(JSON.stringify([partitionPower, replicas, names]), hashSeed);
  const table = new Uint8Array(assignments.buffer, assignments.byteOffset, assignments.byteLength);
  return xxh64(table, seed).toString(16).padStart(16, "0");
};
