import { codeOf } from "../../common/errors.ts";
import {
  abandon,
  type Chains,
  effectOf,
  extendByOverlay,
  finish,
  type Flatten,
  garbageOf,
  type Layer,
  type LayerCopy,
  type LayerId,
  layerOf,
  type Merge,
  made,
  newLayersOf,
  type Pending,
  pendingOf,
  withoutLayer,
} from "./core/chains.ts";
import { copied, copyOf, isSameCopy } from "./core/layer-copies.ts";

/** What changes are written to. */
export type Records = {
  readonly chains: Chains;
  /** Returns once it is on the disk; throws where the old state is still there. */
  change(next: Chains): void;
};

/** The space of layers; every call may be repeated. */
export type Space = {
  /** Resolves once it reads as zeros, or as its base does. Errors: "pool-full". */
  make(layer: Layer): Promise<void>;
  /** Resolves with false, nothing changed, where it cannot grow where it is. */
  grow(layer: Layer, sizeBytes: number): Promise<boolean>;
  /** Resolves once nobody can read what it held. */
  remove(layer: Layer): Promise<void>;
};

/** What of a volume is open. Where it is not exported, there is nothing to do. */
export type OpenVolumes = {
  /** Resolves once everything is written to `layer`, which reads through the present top; at once where no daemon runs. */
  switchTo(volumeId: string, layer: LayerId): Promise<void>;
  /** Resolves once clients see the size; `top` may be a new layer. Connections are closed and may be opened again at once. */
  reopen(volumeId: string, top: LayerId, sizeBytes: number): Promise<void>;
  /**
   * Resolves once the layer that is copied to has all, as after a flush; for a merge with no request of any client answered until `leave` or
   * `stopCopy`. Rejects where the copy is not that far, or failed: then it is stopped.
   */
  holdCopy(volumeId: string, copy: LayerCopy): Promise<void>;
  /** Ends a copy of layers, where one is under way: the daemon goes on as before. */
  stopCopy(volumeId: string): Promise<void>;
  /** Resolves once no daemon has `upper` open. What is answered from now on is read from `lower`; written to it where it is the top. */
  leave(volumeId: string, merge: Merge, isTop: boolean): Promise<void>;
  /** Resolves once no daemon of the volume has `base` open, nor what that lies upon; `layer` lies upon nothing. Clients go on. */
  cut(volumeId: string, flatten: Flatten): Promise<void>;
};

/** The daemon is there and said no: then it goes on as before. */
const isRefusal = (error: unknown): boolean => codeOf(error) === "daemon-refused";

/**
 * Carries changes out, and finishes those that somebody before it had begun. The caller sees to it that no volume is in two changes at once.
 */
export class VolumeChanges {
  readonly #records: Records;
  readonly #space: Space;
  readonly #open: OpenVolumes;
  readonly #newLayerId: () => LayerId;
  #collecting: Promise<void> = Promise.resolve();

  constructor(records: Records, space: Space, open: OpenVolumes, newLayerId: () => LayerId) {
    this.#records = records;
    this.#space = space;
    this.#open = open;
    this.#newLayerId = newLayerId;
  }

  /**
   * Begins the change that `next` has pending for the volume, and resolves once it is finished. Rejects where it was given up, the volume as it
   * was before; or where it could be neither finished nor given up: then it is still pending, and `resume` goes on.
   */
  async carryOut(volumeId: string, next: Chains): Promise<void> {
    this.#records.change(next);
    await this.resume(volumeId);
  }

  /**
   * Takes the layers out of the volume's chain that a daemon has copied. Resolves with false, the copy stopped, where that is not what is to be
   * copied any more.
   */
  async finishCopy(volumeId: string, copy: LayerCopy): Promise<boolean> {
    if (!isSameCopy(copyOf(this.#records.chains, volumeId), copy)) {
      await this.#open.stopCopy(volumeId);
      return false;
    }
    await this.#open.holdCopy(volumeId, copy);
    try {
      this.#records.change(copied(this.#records.chains, volumeId, copy));
    } catch (error) {
      await this.#open.stopCopy(volumeId);
      throw error;
    }
    await this.resume(volumeId);
    return true;
  }

  /** Finishes what is pending for the volume; nothing where nothing is. */
  async resume(volumeId: string): Promise<void> {
    const pending = pendingOf(this.#records.chains, volumeId);
    if (pending === undefined) return;
    if (pending.stage === "making") await this.#make(pending);
    const ready = pendingOf(this.#records.chains, volumeId);
    if (ready !== undefined) await this.#apply(ready);
    await this.collect();
  }

  /** Erases what nothing reaches and forgets it. */
  collect(): Promise<void> {
    // One at a time: what is garbage is the same for all who look.
    const collected = this.#collecting.catch(() => undefined).then(() => this.#collect());
    this.#collecting = collected;
    return collected;
  }

  async #collect(): Promise<void> {
    for (const layer of garbageOf(this.#records.chains)) {
      await this.#space.remove(layer);
      this.#records.change(withoutLayer(this.#records.chains, layer.id));
    }
  }

  async #make(pending: Pending): Promise<void> {
    try {
      for (const id of newLayersOf(pending)) await this.#space.make(layerOf(this.#records.chains, id));
    } catch (error) {
      await this.#giveUp(pending);
      throw error;
    }
    this.#records.change(made(this.#records.chains, pending));
  }

  async #apply(pending: Pending): Promise<void> {
    const { chains } = this.#records;
    const effect = effectOf(chains, pending);
    if (effect.kind === "grow") {
      const { volumeId, sizeBytes } = effect;
      if (!(await this.#hasGrown(pending, layerOf(chains, effect.layer), sizeBytes))) {
        return this.carryOut(volumeId, extendByOverlay(this.#records.chains, volumeId, this.#newLayerId()));
      }
      await this.#orGiveUp(pending, this.#open.reopen(volumeId, effect.layer, sizeBytes));
    } else if (effect.kind === "leave") {
      await this.#open.leave(effect.volumeId, effect, effect.isTop);
    } else if (effect.kind === "cut") {
      await this.#open.cut(effect.volumeId, effect);
    } else if (effect.kind === "switch") {
      const { volumeId, layer, isLarger } = effect;
      const { virtualBytes } = layerOf(chains, layer);
      await this.#orGiveUp(
        pending,
        isLarger ? this.#open.reopen(volumeId, layer, virtualBytes) : this.#open.switchTo(volumeId, layer),
      );
    }
    this.#records.change(finish(this.#records.chains, pending));
  }

  async #hasGrown(pending: Pending, layer: Layer, sizeBytes: number): Promise<boolean> {
    try {
      return await this.#space.grow(layer, sizeBytes);
    } catch (error) {
      await this.#giveUp(pending);
      throw error;
    }
  }

  async #orGiveUp(pending: Pending, done: Promise<void>): Promise<void> {
    try {
      await done;
    } catch (error) {
      if (isRefusal(error)) await this.#giveUp(pending);
      throw error;
    }
  }

  async #giveUp(pending: Pending): Promise<void> {
    this.#records.change(abandon(this.#records.chains, pending));
    await this.collect();
  }
}
