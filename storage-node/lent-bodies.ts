import type { Ballot } from "../common/ballot.ts";
import type { BodyReference } from "./engine/device-engine.ts";
import type { Name } from "./wire.ts";

/** Bodies that are remembered; of more the one that was lent longest ago is forgotten. */
const LENT_LIMIT = 512;

const idOf = (name: Name, bodyVersion: Ballot): string => `${bodyVersion} ${name.space} ${name.path}`;

/**
 * Where the large bodies lie of which somebody reads piece by piece. Whoever has begun with one that is overwritten meanwhile finds it here, as long as
 * the engine still has it.
 */
export class LentBodies {
  readonly #lent = new Map<string, BodyReference>();

  /** A piece of it was read while it was the object's. */
  lend(name: Name, bodyVersion: Ballot, body: BodyReference): void {
    if (body.kind !== "file") return;
    const id = idOf(name, bodyVersion);
    this.#lent.delete(id);
    this.#lent.set(id, body);
    if (this.#lent.size <= LENT_LIMIT) return;
    const oldest = this.#lent.keys().next();
    if (!oldest.done) this.#lent.delete(oldest.value);
  }

  get(name: Name, bodyVersion: Ballot): BodyReference | undefined {
    return this.#lent.get(idOf(name, bodyVersion));
  }
}
