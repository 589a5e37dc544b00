import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { type Random, seededRandom } from "../../common/random.ts";
import { chosenSeeds } from "../../common/simulation/seeds.ts";
import { BackupStore, nameIn } from "./backup-store.ts";
import { type BackupSource, copyVolume } from "./copy.ts";
import { GRAIN_BYTES, PAGE_BYTES, pageCountOf } from "./core/page.ts";
import type { Extent } from "./core/runs.ts";
import { createFakeObjectStore, type FakeObjectStore } from "./fake-object-store.ts";
import { projectKeys } from "./keys.ts";
import { checkBackup, restoreVolume } from "./restore.ts";
import { sweepStore } from "./sweep.ts";

/*
 * Volumes are written to, backed up, restored; backups are deleted and what is left of them swept; and whoever does it is killed before or after
 * any call to the store. What he had written down stands: that is the table of saved pages, and which backups there are.
 */

const SIZE_BYTES = 2 * PAGE_BYTES + 40 * GRAIN_BYTES + 512;
const GRAINS = Math.ceil(SIZE_BYTES / GRAIN_BYTES);
const STEPS = 50;
const GRACE_MS = 1000;

/** What each grain holds: a number that its bytes are made of; 0: zeros. */
type Content = Uint32Array;

const grainBytes = (value: number): Buffer => {
  const bytes = Buffer.alloc(GRAIN_BYTES);
  if (value !== 0) for (let at = 0; at < GRAIN_BYTES; at += 4096) bytes.writeUInt32LE(value, at);
  return bytes;
};

const lengthOf = (grain: number): number => Math.min(GRAIN_BYTES, SIZE_BYTES - grain * GRAIN_BYTES);

type Volume = { readonly content: Content; readonly changed: Set<number>; last: string | undefined };
type Backup = { readonly id: string; readonly content: Content };

class Killed extends Error {}

class World {
  readonly random: Random;
  readonly objects: FakeObjectStore;
  readonly store: BackupStore;
  readonly volumes: Volume[];
  readonly backups = new Map<string, Backup>();
  nowMs = 1_000_000;
  /** Calls until the next kill. */
  #fuse = Number.POSITIVE_INFINITY;

  constructor(seed: bigint) {
    this.random = seededRandom(seed);
    this.objects = createFakeObjectStore(() => this.nowMs);
    this.objects.intercept = () => {
      this.nowMs += 1;
      this.#fuse -= 1;
      if (this.#fuse <= 0) throw new Killed();
    };
    const keys = projectKeys(Buffer.alloc(32, 1), "project");
    const isEncrypted = this.random.below(2) === 0;
    this.store = new BackupStore({
      objects: this.objects,
      projectId: "project",
      keys,
      compression: "zstd",
      isEncrypted,
    });
    this.volumes = [0, 1].map(() => ({ content: new Uint32Array(GRAINS), changed: new Set(), last: undefined }));
  }

  /** Does it until it is done, killed now and then. */
  async despiteKills(action: () => Promise<void>): Promise<void> {
    for (;;) {
      this.#fuse = this.random.below(3) === 0 ? 1 + this.random.below(25) : Number.POSITIVE_INFINITY;
      try {
        return await action();
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
      } finally {
        this.#fuse = Number.POSITIVE_INFINITY;
      }
    }
  }

  volume(): Volume {
    const volume = this.volumes[this.random.below(this.volumes.length)];
    if (volume === undefined) throw new Error("there are two volumes");
    return volume;
  }

  write(volume: Volume): void {
    for (let count = this.random.below(6); count > 0; count--) {
      const first = this.random.below(GRAINS);
      // Few values: chunks of different backups and volumes are often the same.
      const value = this.random.below(4);
      for (let grain = first; grain < Math.min(GRAINS, first + 1 + this.random.below(20)); grain++) {
        volume.content[grain] = value;
        volume.changed.add(grain);
      }
    }
  }

  sourceOf(content: Content, changed: ReadonlySet<number> | undefined): BackupSource {
    return {
      changes: (offset, length) => {
        const extents: Extent[] = [];
        const coveredBytes = Math.min(length, GRAIN_BYTES * (1 + this.random.below(2 * GRAINS)));
        const end = Math.min(SIZE_BYTES, offset + coveredBytes);
        for (let grain = Math.floor(offset / GRAIN_BYTES); grain * GRAIN_BYTES < end; grain++) {
          const isZero = content[grain] === 0;
          if (changed === undefined ? isZero : !changed.has(grain)) continue;
          extents.push({ offset: grain * GRAIN_BYTES, length: lengthOf(grain), isZero });
        }
        return Promise.resolve({ coveredBytes, extents });
      },
      read: (offset, length) => {
        const bytes = Buffer.concat(
          Array.from({ length: Math.ceil(length / GRAIN_BYTES) }, (_, index) =>
            grainBytes(content[offset / GRAIN_BYTES + index] ?? 0),
          ),
        );
        return Promise.resolve(bytes.subarray(0, length));
      },
    };
  }

  async backUp(volume: Volume): Promise<void> {
    const id = randomUUID();
    const content = volume.content.slice();
    const parentId = this.random.below(4) === 0 ? undefined : volume.last;
    const parent = parentId === undefined || !this.backups.has(parentId) ? undefined : parentId;
    // The record of changes may be lost: then everything is looked at, and only what is new is sent.
    const changed = parent === undefined || this.random.below(8) === 0 ? undefined : new Set(volume.changed);
    const all = new Set(Array.from({ length: GRAINS }, (_, grain) => grain));
    volume.changed.clear();
    const pages = new Map<number, string | undefined>();
    await this.despiteKills(async () => {
      const before = parent === undefined ? undefined : await this.store.getList(parent);
      await copyVolume({
        source: this.sourceOf(content, before === undefined ? undefined : (changed ?? all)),
        store: this.store,
        sizeBytes: SIZE_BYTES,
        parent: before,
        firstPage: Math.max(-1, ...pages.keys()) + 1,
        save: (page, name) => Promise.resolve(void pages.set(page, name)),
        signal: new AbortController().signal,
      });
      const listed = Array.from({ length: pageCountOf(SIZE_BYTES) }, (_, page) =>
        pages.has(page) ? pages.get(page) : before?.pages[page],
      );
      await this.store.putList({ backupId: id, sizeBytes: SIZE_BYTES, takenAtMs: this.nowMs, pages: listed });
    });
    this.backups.set(id, { id, content });
    volume.last = id;
  }

  /** Copies some of it, and never comes back to it. */
  async beginInVain(volume: Volume): Promise<void> {
    this.#fuse = 1 + this.random.below(20);
    const source = this.sourceOf(volume.content, undefined);
    const [save, signal] = [() => Promise.resolve(), new AbortController().signal];
    const given = { source, store: this.store, sizeBytes: SIZE_BYTES, parent: undefined, firstPage: 0, save, signal };
    await copyVolume(given).catch((error: unknown) => expect(error).toBeInstanceOf(Killed));
    this.#fuse = Number.POSITIVE_INFINITY;
  }

  async remove(): Promise<void> {
    const ids = [...this.backups.keys()];
    const id = ids[this.random.below(Math.max(1, ids.length))];
    if (id === undefined) return;
    await this.despiteKills(() => this.store.removeList(id));
    this.backups.delete(id);
  }

  async sweep(graceMs: number): Promise<void> {
    await this.despiteKills(async () => {
      const hold = () => Promise.resolve();
      await sweepStore({ store: this.store, nowMs: this.nowMs, graceMs, hold });
    });
  }

  async restored({ id }: Backup): Promise<Content> {
    const isBlank = this.random.below(2) === 0;
    const saved = new Uint32Array(GRAINS).fill(isBlank ? 0 : 99);
    let target = saved.slice();
    let firstPage = 0;
    const put = (offset: number, length: number, valueAt: (at: number) => number): void => {
      for (let at = 0; at < length; at += GRAIN_BYTES) target[(offset + at) / GRAIN_BYTES] = valueAt(at);
    };
    await this.despiteKills(async () => {
      // What was not flushed may be there or not.
      if (this.random.below(2) === 0) target = saved.slice();
      const list = await this.store.getList(id);
      const signal = new AbortController().signal;
      await checkBackup(this.store, list, signal);
      await restoreVolume({
        store: this.store,
        list,
        isBlank,
        signal,
        firstPage,
        save: (pages) => {
          saved.set(target);
          firstPage = pages;
          return Promise.resolve();
        },
        pagesBetweenSaves: 1,
        target: {
          write: (offset, bytes) => Promise.resolve(put(offset, bytes.length, (at) => bytes.readUInt32LE(at))),
          zero: (offset, length) => Promise.resolve(put(offset, length, () => 0)),
        },
      });
    });
    return target;
  }

  /** Names of everything that the backups need. */
  async needed(): Promise<readonly string[]> {
    const names = new Set<string>();
    for (const { id } of this.backups.values()) {
      names.add(`backups/${id}`);
      for (const page of (await this.store.getList(id)).pages) {
        if (page === undefined) continue;
        names.add(`pages/${page}`);
        for (const { chunk } of await this.store.getPage(page)) names.add(`chunks/${chunk}`);
      }
    }
    return [...names].toSorted();
  }

  get stored(): readonly string[] {
    return [...this.objects.objects.keys()].map(nameIn).toSorted();
  }
}

const run = async (seed: bigint): Promise<void> => {
  const world = new World(seed);
  for (let step = 0; step < STEPS; step++) {
    const volume = world.volume();
    const dice = world.random.below(10);
    world.write(volume);
    if (dice < 5) await world.backUp(volume);
    else if (dice < 6) await world.beginInVain(volume);
    else if (dice < 8) await world.remove();
    else await world.sweep(world.random.below(2) * GRACE_MS);
  }
  for (const backup of world.backups.values()) expect(await world.restored(backup)).toEqual(backup.content);
  world.nowMs += GRACE_MS;
  await world.sweep(GRACE_MS);
  expect(world.stored).toEqual(await world.needed());
};

const { first, count } = chosenSeeds(30);
for (let seed = first; seed < first + BigInt(count); seed++)
  test(`SEED=${seed}: after 50 backups, deletions, sweeps and kills every backup restores, and nothing else is stored`, () =>
    run(seed));
