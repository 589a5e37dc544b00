import assert from "node:assert/strict";
import { dirname } from "node:path";
import { type Disk, type DiskFile, type OpenMode, assertDirect } from "../disk.ts";
import type { Random } from "../random.ts";

/** What the hardware writes whole or not at all. */
const SECTOR_BYTES = 512;

/** Memory that direct transfers may use. */
const directMemories = new WeakSet<ArrayBufferLike>();

type Write = { readonly offset: number; readonly bytes: Uint8Array };

/** A file: what is synced, and what was written since, in order. */
type File = { durable: Uint8Array; current: Uint8Array; writes: Write[] };

type EntryChange = { readonly name: string; readonly to: File | "folder" | undefined };

/** A folder: which names are synced, and what changed since, in order. */
type Folder = { durable: Map<string, File | "folder">; current: Map<string, File | "folder">; changes: EntryChange[] };

class PowerLost extends Error {
  readonly code = "EPOWER";
}

class SystemError extends Error {
  readonly code: string;

  constructor(code: string, path: string) {
    super(`${code}: ${path}`);
    this.code = code;
  }
}

/**
 * A file system in memory that loses power: at a chosen step everything stops, and `afterPowerLoss` is the disk as it is found then.
 *
 * Every write, sync, creation, rename and unlink is a step. Of unsynced writes a random part arrives, sector by sector; of a
 * folder's unsynced changes a random number of the first ones. `fdatasync` keeps a file's bytes, not its name.
 */
export class SimulatedDisk implements Disk {
  /** Steps taken so far. */
  steps = 0;
  /** The step at whose beginning power is lost. */
  powerLossAt = Number.POSITIVE_INFINITY;
  /** Bytes that fit. */
  capacity = Number.POSITIVE_INFINITY;
  /** Resolves when the disk has done the next step: in the next turn, or when a simulation says so, for which a disk without power may never. */
  turn: () => Promise<void> = nextTurn;
  readonly #folders: Map<string, Folder>;

  constructor(folders: Map<string, Folder> = new Map()) {
    this.#folders = folders;
    if (!folders.has("/")) folders.set("/", emptyFolder());
  }

  get hasPower(): boolean {
    return this.steps < this.powerLossAt;
  }

  /** The disk after power loss; `random` decides what of the unsynced arrived. */
  afterPowerLoss(random: Random): SimulatedDisk {
    const files = new Map<File, File>();
    const survivor = (file: File): File => {
      let found = files.get(file);
      if (found === undefined) {
        const bytes = survivingBytes(file, random);
        found = { durable: bytes, current: bytes.slice(), writes: [] };
        files.set(file, found);
      }
      return found;
    };
    const folders = new Map<string, Folder>();
    for (const [path, folder] of this.#folders) {
      const entries = new Map(folder.durable);
      const kept = random.below(folder.changes.length + 1);
      for (const { name, to } of folder.changes.slice(0, kept)) {
        if (to === undefined) entries.delete(name);
        else entries.set(name, to);
      }
      const durable = new Map<string, File | "folder">();
      for (const [name, entry] of entries) durable.set(name, entry === "folder" ? entry : survivor(entry));
      folders.set(path, { durable, current: new Map(durable), changes: [] });
    }
    // A folder whose own entry was lost is gone with what was in it.
    for (const path of folders.keys()) {
      if (path !== "/" && folders.get(dirname(path))?.current.get(path) !== "folder") folders.delete(path);
    }
    return new SimulatedDisk(folders);
  }

  get usedBytes(): number {
    return this.#usedBytes();
  }

  /** Writes that power loss may tear or drop, and changes of names that it may drop. */
  get unsyncedCount(): number {
    let count = 0;
    for (const { changes, current } of this.#folders.values()) {
      count += changes.length;
      for (const entry of current.values()) if (entry !== "folder") count += entry.writes.length;
    }
    return count;
  }

  /** Changes one byte of a synced file, as a failing disk would. */
  flipBit(path: string, offset: number): void {
    const file = this.#file(path);
    for (const bytes of [file.durable, file.current]) bytes[offset] = (bytes[offset] ?? 0) ^ 1;
  }

  #step(): void {
    if (!this.hasPower) throw new PowerLost("power lost");
    this.steps++;
  }

  #folder(path: string): Folder {
    const folder = this.#folders.get(path);
    if (folder === undefined) throw new SystemError("ENOENT", path);
    return folder;
  }

  #file(path: string): File {
    const entry = this.#folder(dirname(path)).current.get(path);
    if (entry === undefined || entry === "folder") throw new SystemError("ENOENT", path);
    return entry;
  }

  #change(path: string, to: File | "folder" | undefined): void {
    const folder = this.#folder(dirname(path));
    folder.changes.push({ name: path, to });
    if (to === undefined) folder.current.delete(path);
    else folder.current.set(path, to);
  }

  async kindOf(path: string): Promise<"absent" | "folder" | "file"> {
    if (this.#folders.has(path)) return "folder";
    return this.#folders.get(dirname(path))?.current.has(path) === true ? "file" : "absent";
  }

  async makeFolder(path: string): Promise<void> {
    this.#step();
    if (this.#folders.has(path)) return;
    this.#change(path, "folder");
    this.#folders.set(path, emptyFolder());
  }

  async list(path: string): Promise<string[]> {
    return [...this.#folder(path).current.keys()].map((name) => name.slice(path.length + 1)).toSorted();
  }

  async open(path: string, mode: OpenMode): Promise<DiskFile> {
    if (mode === "existing") return this.#handle(this.#file(path));
    if (mode === "write-through") return this.#writeThrough(this.#file(path));
    if (mode === "direct-write-through") return checkedDirect(this.#writeThrough(this.#file(path)));
    if (mode === "direct") return checkedDirect(this.#handle(this.#file(path)));
    this.#step();
    if (this.#folder(dirname(path)).current.has(path)) throw new SystemError("EEXIST", path);
    const file: File = { durable: new Uint8Array(0), current: new Uint8Array(0), writes: [] };
    this.#change(path, file);
    return mode === "create-direct" ? checkedDirect(this.#handle(file)) : this.#handle(file);
  }

  #handle(file: File): DiskFile {
    const readSync = (buffer: Uint8Array, offset: number): number => {
      const part = file.current.subarray(offset, offset + buffer.length);
      buffer.set(part);
      return part.length;
    };
    return {
      size: async () => file.current.length,
      readSync,
      read: async (buffers, offset) => {
        if (!this.hasPower) throw new PowerLost("power lost");
        let done = 0;
        for (const buffer of buffers) done += readSync(buffer, offset + done);
        return done;
      },
      write: async (bytes, offset) => {
        const copy = bytes.slice();
        // The write that power loss interrupts may have arrived in part.
        if (this.hasPower || this.steps === this.powerLossAt) this.#write(file, { offset, bytes: copy });
        this.#step();
        await this.turn();
        if (!this.hasPower) throw new PowerLost("power lost");
      },
      sync: async () => {
        this.#step();
        await this.turn();
        if (!this.hasPower) throw new PowerLost("power lost");
        file.durable = file.current.slice();
        file.writes = [];
      },
      close: async () => {},
    };
  }

  /** Until it resolves a write is as unsynced as any; then its own bytes are durable, and no others. */
  #writeThrough(file: File): DiskFile {
    const handle = this.#handle(file);
    return {
      ...handle,
      write: async (bytes, offset) => {
        const copy = bytes.slice();
        await handle.write(copy, offset);
        this.#step();
        await this.turn();
        if (!this.hasPower) throw new PowerLost("power lost");
        const end = offset + copy.length;
        if (end > file.durable.length) {
          const grown = new Uint8Array(end);
          grown.set(file.durable);
          file.durable = grown;
        }
        file.durable.set(copy, offset);
        file.writes = file.writes.filter((write) => write.offset !== offset || write.bytes.length !== copy.length);
      },
    };
  }

  #write(file: File, write: Write): void {
    const end = write.offset + write.bytes.length;
    if (end > file.current.length) {
      if (this.#usedBytes() + end - file.current.length > this.capacity) throw new SystemError("ENOSPC", "write");
      const grown = new Uint8Array(end);
      grown.set(file.current);
      file.current = grown;
    }
    file.current.set(write.bytes, write.offset);
    file.writes.push(write);
  }

  async rename(from: string, to: string): Promise<void> {
    this.#step();
    const file = this.#file(from);
    // One transaction of the file system's journal: both names change, or neither.
    const folder = this.#folder(dirname(from));
    this.#change(from, undefined);
    this.#change(to, file);
    if (folder === this.#folder(dirname(to))) {
      // A prefix that ends between the two is a file without a name, which a journal never leaves: put the new name first.
      const second = folder.changes.pop();
      const first = folder.changes.pop();
      if (first !== undefined && second !== undefined) folder.changes.push(second, first);
    }
  }

  async unlink(path: string): Promise<void> {
    this.#step();
    if (this.#folder(dirname(path)).current.has(path)) this.#change(path, undefined);
  }

  async syncFolder(path: string): Promise<void> {
    this.#step();
    await this.turn();
    if (!this.hasPower) throw new PowerLost("power lost");
    const folder = this.#folder(path);
    folder.durable = new Map(folder.current);
    folder.changes = [];
  }

  async freeBytes(): Promise<number> {
    return this.capacity - this.#usedBytes();
  }

  directMemory(bytes: number): Uint8Array {
    const memory = new Uint8Array(bytes);
    directMemories.add(memory.buffer);
    return memory;
  }

  #usedBytes(): number {
    let used = 0;
    const counted = new Set<File>();
    for (const folder of this.#folders.values()) {
      for (const entry of folder.current.values()) {
        if (entry === "folder" || counted.has(entry)) continue;
        counted.add(entry);
        used += entry.current.length;
      }
    }
    return used;
  }
}

/** What passes by the page cache is as unsynced as the rest, since the disk has a cache too. */
const checkedDirect = (file: DiskFile): DiskFile => {
  const check = (bytes: Uint8Array, offset: number): void => {
    assertDirect(bytes, offset);
    assert(directMemories.has(bytes.buffer), "direct transfers use memory of the disk");
  };
  return {
    ...file,
    read: async (buffers, offset) => {
      let at = offset;
      for (const buffer of buffers) {
        check(buffer, at);
        at += buffer.length;
      }
      return file.read(buffers, offset);
    },
    readSync: (buffer, offset) => {
      check(buffer, offset);
      return file.readSync(buffer, offset);
    },
    write: async (bytes, offset) => {
      check(bytes, offset);
      await file.write(bytes, offset);
    },
  };
};

const emptyFolder = (): Folder => ({ durable: new Map(), current: new Map(), changes: [] });

const nextTurn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** What is found of a file: its synced bytes, and of each later write none, all, a beginning, or any of its sectors. */
const survivingBytes = (file: File, random: Random): Uint8Array => {
  let bytes = file.durable.slice();
  for (const { offset, bytes: written } of file.writes) {
    const mode = random.below(4);
    if (mode === 0) continue;
    const sectors = Math.ceil((offset + written.length) / SECTOR_BYTES) - Math.floor(offset / SECTOR_BYTES);
    const beginning = random.below(sectors + 1);
    for (let sector = 0; sector < sectors; sector++) {
      const arrives = mode === 1 || (mode === 2 ? sector < beginning : random.below(2) === 0);
      if (!arrives) continue;
      const start = (Math.floor(offset / SECTOR_BYTES) + sector) * SECTOR_BYTES;
      const from = Math.max(start, offset);
      const to = Math.min(start + SECTOR_BYTES, offset + written.length);
      if (to > bytes.length) {
        const grown = new Uint8Array(to);
        grown.set(bytes);
        bytes = grown;
      }
      bytes.set(written.subarray(from - offset, to - offset), from);
    }
  }
  return bytes;
};
