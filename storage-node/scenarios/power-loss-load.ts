import { type Random, seededRandom } from "../../common/random.ts";
import type { DeviceEngine, Mutation, NewBody } from "../engine/device-engine.ts";
import { openDevice } from "../engine/open-device.ts";
import { RowSpace } from "../row-space.ts";
import { type ListQuery, type Name, unpackRows } from "../wire.ts";
import { PromiseWriter } from "./promise-book.ts";
import {
  type Stored,
  allKeys,
  bodyOf,
  containers,
  DIGESTS,
  identity,
  keyOf,
  nameOf,
  rowOf,
  rowSeeds,
  rowTitle,
  storedIn,
  valueOf,
  versionOf,
} from "./stored-content.ts";

const MIB = 1024 * 1024;
/** Versions of one life are above those of the one before. */
const VERSIONS_PER_LIFE = 10_000_000;
const HOT_NAMES = 60;
const PAIRS = 10;
const LARGE_NAMES = 6;
const WIDE_NAMES = 5000;
const ROW_NAMES = 150;
export const SCAN_LIMIT = 10_000;

/** Small segments, so that recycling, compaction and checkpoints happen within seconds. */
export const deviceParts = { segmentBytes: 2 * MIB, reservedBytes: 0 };
export const wholeListing: ListQuery = {
  prefix: "",
  marker: "",
  endMarker: "",
  limit: SCAN_LIMIT,
  isReverse: false,
  withDeleted: true,
};

/**
 * "brisk": many checkpoints. "wide": long keys, and a checkpoint just after they have filled LevelDB's memory (16 MiB): it closes the old
 * write-ahead file unsynced then and is still writing its table, so that a checkpoint that trusts a synced put loses entries.
 */
export type Kind = "brisk" | "wide";
const SHAPES: Readonly<Record<Kind, { readonly workers: number; readonly checkpointBytes: number }>> = {
  brisk: { workers: 16, checkpointBytes: MIB },
  wide: { workers: 400, checkpointBytes: 18 * MIB },
};

/** One process that uses a device until it is killed. */
class Life {
  readonly #device: DeviceEngine;
  readonly #rows: RowSpace;
  readonly #book: PromiseWriter;
  readonly #random: Random;
  readonly #kind: Kind;
  /** What this life last gave to the device; older ones it does not build upon. */
  readonly #newest = new Map<string, Stored>();
  #version: number;
  #wideCount = 0;

  constructor(device: DeviceEngine, book: PromiseWriter, number: number, kind: Kind) {
    this.#device = device;
    this.#rows = new RowSpace(device, rowSeeds);
    this.#book = book;
    this.#random = seededRandom(BigInt(number));
    this.#kind = kind;
    this.#version = number * VERSIONS_PER_LIFE;
  }

  /** Notes all that the device shows. */
  async lookAround(): Promise<void> {
    const found = new Map<string, number>();
    for (const { key, value } of await this.#device.scan({ ...allKeys, limit: SCAN_LIMIT }))
      found.set(nameOf(key), storedIn(value).version);
    for (const name of universe()) this.#book.seen(name, found.get(name) ?? 0);
    for (const owner of containers) {
      const rows = new Map(
        unpackRows(Buffer.concat(await this.#rows.list(owner, wholeListing))).map((row) => [row.name, versionOf(row)]),
      );
      for (const name of numbered("row", ROW_NAMES)) this.#book.seen(rowTitle(owner, name), rows.get(name) ?? 0);
    }
  }

  async work(): Promise<never> {
    for (;;) {
      const choice = this.#random.below(100);
      if (this.#kind === "wide" && choice >= 10) await this.#putLog(this.#wideName());
      else if (choice === 0) await this.#putLarge();
      else if (choice < 6) await this.#putRow();
      else if (choice < 8) await this.#putPair();
      else if (choice < 10) await this.#delete();
      else if (choice < 13) await this.#putLarge();
      else if (choice < 35) await this.#putRow();
      else if (choice < 43) await this.#putPair();
      else if (choice < 50) await this.#delete();
      else await this.#putLog(`hot${this.#random.below(HOT_NAMES)}`);
    }
  }

  /** Each once at first: garbage would be compacted, and compaction wants a checkpoint. */
  #wideName(): string {
    return `wide${this.#wideCount < WIDE_NAMES ? this.#wideCount++ : this.#random.below(WIDE_NAMES)}`;
  }

  #next(name: string, bodyLength: number, bodyVersion?: number): Stored {
    const version = ++this.#version;
    const padding = this.#random.below(4) === 0 ? this.#random.below(2000) : 0;
    return { name, version, bodyVersion: bodyVersion ?? version, bodyLength, padding };
  }

  async #apply(changes: readonly { readonly stored: Stored; readonly body: NewBody }[]): Promise<void> {
    const mutations = changes.map(({ stored, body }): Mutation => {
      this.#book.asked(stored.name, { version: stored.version, isAbsent: false });
      this.#newest.set(stored.name, stored);
      return { kind: "put", key: keyOf(stored.name), value: valueOf(stored), body };
    });
    await this.#device.apply(mutations);
    for (const { stored } of changes) this.#book.done(stored.name, stored.version);
  }

  async #putLog(name: string): Promise<void> {
    const old = this.#newest.get(name);
    if (old !== undefined && this.#random.below(5) === 0) {
      const stored = this.#next(name, old.bodyLength, old.bodyVersion);
      await this.#apply([{ stored, body: { kind: "keep" } }]);
      return;
    }
    const stored = this.#next(name, this.#random.below(this.#kind === "wide" ? 100 : 9000));
    await this.#apply([{ stored, body: inLog(stored) }]);
  }

  async #putPair(): Promise<void> {
    const number = this.#random.below(PAIRS);
    const left = this.#next(`left${number}`, this.#random.below(3000));
    const right = { ...left, name: `right${number}` };
    await this.#apply([left, right].map((stored) => ({ stored, body: inLog(stored) })));
  }

  async #putLarge(): Promise<void> {
    const name = `large${this.#random.below(LARGE_NAMES)}`;
    const stored = this.#next(name, 1 + this.#random.below(2 * MIB));
    const staged = await this.#device.stage();
    await staged.write(bodyOf(name, stored.bodyVersion, stored.bodyLength));
    if (this.#random.below(5) === 0) {
      await staged.abandon();
      return;
    }
    const length = await staged.seal();
    // Versions rise in the order in which the device takes them, and staging took its time.
    const version = ++this.#version;
    await this.#apply([{ stored: { ...stored, version }, body: { kind: "staged", file: staged.file, length } }]);
  }

  async #delete(): Promise<void> {
    const name =
      this.#random.below(10) === 0 ? `large${this.#random.below(LARGE_NAMES)}` : `hot${this.#random.below(HOT_NAMES)}`;
    const version = ++this.#version;
    this.#book.asked(name, { version, isAbsent: true });
    this.#newest.delete(name);
    await this.#device.apply([{ kind: "delete", key: keyOf(name) }]);
    this.#book.done(name, version);
  }

  async #putRow(): Promise<void> {
    const owner = containers[this.#random.below(containers.length)] as Name;
    const name = `row${this.#random.below(ROW_NAMES)}`;
    const version = ++this.#version;
    const title = rowTitle(owner, name);
    this.#book.asked(title, { version, isAbsent: false });
    await this.#rows.put(owner, rowOf(name, version, this.#random.below(4) === 0));
    this.#book.done(title, version);
  }
}

const inLog = ({ name, bodyVersion, bodyLength }: Stored): NewBody =>
  bodyLength === 0 ? { kind: "none" } : { kind: "bytes", bytes: bodyOf(name, bodyVersion, bodyLength) };

const numbered = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}`);

const universe = (): string[] => [
  ...numbered("hot", HOT_NAMES),
  ...numbered("left", PAIRS),
  ...numbered("right", PAIRS),
  ...numbered("large", LARGE_NAMES),
  ...numbered("wide", WIDE_NAMES),
];

/** `node power-loss-load.ts DEVICE BOOK WRITE-LOG NUMBER KIND`: the NUMBERth life of a device, until it is killed. */
const main = async ([path = "", book = "", writeLog = "", number = "1", kindText = ""]: string[]): Promise<void> => {
  const kind: Kind = kindText === "wide" ? "wide" : "brisk";
  const { workers, checkpointBytes } = SHAPES[kind];
  const device = await openDevice({ path, identity, digests: DIGESTS }, { ...deviceParts, checkpointBytes });
  const life = new Life(device, new PromiseWriter(book, writeLog), Number(number), kind);
  if (Number(number) > 1) await life.lookAround();
  await Promise.all(Array.from({ length: workers }, () => life.work()));
};

if (import.meta.main) await main(process.argv.slice(2));
