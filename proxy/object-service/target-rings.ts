import { statSync } from "node:fs";
import { messageOf } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { checkTarget } from "../../ring/base-ring.ts";
import { loadRing } from "../../ring/ring-file.ts";
import type { Ring } from "../../ring/ring.ts";
import type { Space } from "../../storage-node/wire.ts";
import type { Rings } from "./partitions.ts";

const SPACES: readonly Space[] = ["account", "container", "object"];

export type TargetRingsParts = {
  readonly base: Rings;
  readonly pathOf: (space: Space) => string;
  /** Errors (thrown): "ring-names-unknown-node". */
  readonly checkKnown: (ring: Ring) => void;
  readonly log: Log;
};

type Watched = { ring: Ring; seen: string; refusal: string | undefined };

/** `ino mtime size` of a file; changes whenever another one is put in its place. */
const stampOf = (path: string): string => {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "none" : `${stat.ino} ${stat.mtimeNs} ${stat.size}`;
};

/**
 * The rings that say where data is to be, as their files say it now. A file that is replaced while this process runs is taken if its version is higher and it
 * fits what the installation began with; else what counted before goes on counting, and an operator finds out why.
 */
export class TargetRings {
  readonly #parts: TargetRingsParts;
  readonly #watched = new Map<Space, Watched>();
  /** Grows with every ring that is taken. */
  changes = 0;

  /** Where the file that is there cannot be followed nothing is to move: until another one is, the base counts, which moves nothing back (`mover-lease.ts`). */
  constructor(parts: TargetRingsParts) {
    this.#parts = parts;
    for (const space of SPACES) this.#watched.set(space, { ring: parts.base[space], seen: "", refusal: undefined });
    this.look();
  }

  ringOf(space: Space): Ring {
    const watched = this.#watched.get(space);
    if (watched === undefined) throw new Error("there is no such space");
    return watched.ring;
  }

  /** Why the file that is there now is not what counts. */
  refusalOf(space: Space): string | undefined {
    return this.#watched.get(space)?.refusal;
  }

  /** Takes what has changed since. */
  look(): void {
    for (const [space, watched] of this.#watched) {
      const path = this.#parts.pathOf(space);
      const seen = stampOf(path);
      if (seen === watched.seen) continue;
      watched.seen = seen;
      watched.refusal = this.#take(space, path, watched);
      if (watched.refusal === undefined) continue;
      this.#parts.log.error("a ring file is refused; the ring before it goes on counting", {
        path,
        version: watched.ring.version,
        error: watched.refusal,
      });
    }
  }

  #take(space: Space, path: string, watched: Watched): string | undefined {
    try {
      const ring = loadRing(path);
      checkTarget(this.#parts.base[space], ring);
      this.#parts.checkKnown(ring);
      const { version } = watched.ring;
      if (ring.version < version) return `it has version ${ring.version}, and version ${version} counts`;
      if (ring.version === version)
        return isSame(ring, watched.ring) ? undefined : `it is another ring of version ${version}`;
      watched.ring = ring;
      this.changes += 1;
      this.#parts.log.info("a newer ring counts", { path, version: ring.version, before: version });
      return undefined;
    } catch (error) {
      return messageOf(error);
    }
  }
}

const isSame = (left: Ring, right: Ring): boolean =>
  left.assignments.length === right.assignments.length &&
  left.assignments.every((id, slot) => id === right.assignments[slot]);
