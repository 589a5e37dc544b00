import * as fs from "node:fs";
import * as promises from "node:fs/promises";
import { codeOf } from "../../common/errors.ts";
import type { Disk, DiskFile, OpenMode } from "../../common/disk.ts";

const FLAGS: Readonly<Record<OpenMode, string | number>> = {
  create: "wx+",
  existing: "r+",
  "write-through": fs.constants.O_RDWR | fs.constants.O_DSYNC,
};

/** Callbacks, not `node:fs/promises`: a FileHandle costs several promises and objects per operation. */
const realFile = (descriptor: number): DiskFile => ({
  size: () =>
    new Promise((resolve, reject) => {
      fs.fstat(descriptor, (error, stats) => (error === null ? resolve(stats.size) : reject(error)));
    }),
  read: (buffers, offset) =>
    new Promise((resolve, reject) => {
      const [only] = buffers;
      if (buffers.length === 1 && only !== undefined) {
        readOne(descriptor, only, offset, resolve, reject);
        return;
      }
      let wanted = 0;
      for (const buffer of buffers) wanted += buffer.length;
      let rest = buffers.filter((buffer) => buffer.length > 0);
      let done = 0;
      const next = (error: Error | null, count: number): void => {
        if (error !== null) return reject(error);
        done += count;
        if (count === 0 || done === wanted) return resolve(done);
        rest = behind(rest, count);
        fs.readv(descriptor, rest, offset + done, next);
      };
      if (wanted === 0) resolve(0);
      else fs.readv(descriptor, rest, offset, next);
    }),
  readSync: (buffer, offset) => {
    let done = 0;
    while (done < buffer.length) {
      const count = fs.readSync(descriptor, buffer, done, buffer.length - done, offset + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  },
  write: (bytes, offset) =>
    new Promise((resolve, reject) => {
      let done = 0;
      const next = (error: Error | null, count: number): void => {
        if (error !== null) return reject(error);
        done += count;
        if (done === bytes.length) return resolve();
        fs.write(descriptor, bytes, done, bytes.length - done, offset + done, next);
      };
      fs.write(descriptor, bytes, 0, bytes.length, offset, next);
    }),
  sync: () =>
    new Promise((resolve, reject) => {
      fs.fdatasync(descriptor, (error) => (error === null ? resolve() : reject(error)));
    }),
  close: () =>
    new Promise((resolve, reject) => {
      fs.close(descriptor, (error) => (error === null || error === undefined ? resolve() : reject(error)));
    }),
});

/** `read` costs less than `readv` with one buffer. */
const readOne = (
  descriptor: number,
  buffer: Uint8Array,
  offset: number,
  resolve: (count: number) => void,
  reject: (error: Error) => void,
): void => {
  let done = 0;
  const next = (error: Error | null, count: number): void => {
    if (error !== null) return reject(error);
    done += count;
    if (count === 0 || done === buffer.length) return resolve(done);
    fs.read(descriptor, buffer, done, buffer.length - done, offset + done, next);
  };
  fs.read(descriptor, buffer, 0, buffer.length, offset, next);
};

/** What is left to fill after a short read. */
const behind = (buffers: readonly Uint8Array[], count: number): Uint8Array[] => {
  let skip = count;
  const rest: Uint8Array[] = [];
  for (const buffer of buffers) {
    if (skip >= buffer.length) skip -= buffer.length;
    else {
      rest.push(buffer.subarray(skip));
      skip = 0;
    }
  }
  return rest;
};

const ignoring = async (code: string, doing: Promise<unknown>): Promise<void> => {
  try {
    await doing;
  } catch (error) {
    if (codeOf(error) !== code) throw error;
  }
};

/** The machine's file system. */
export const realDisk: Disk = {
  kindOf: async (path) => {
    try {
      return (await promises.stat(path)).isDirectory() ? "folder" : "file";
    } catch (error) {
      if (codeOf(error) === "ENOENT") return "absent";
      throw error;
    }
  },
  makeFolder: (path) => ignoring("EEXIST", promises.mkdir(path, { mode: 0o700 })),
  list: async (path) => (await promises.readdir(path)).toSorted(),
  open: (path, mode) =>
    new Promise((resolve, reject) => {
      fs.open(path, FLAGS[mode], 0o600, (error, descriptor) =>
        error === null ? resolve(realFile(descriptor)) : reject(error),
      );
    }),
  rename: (from, to) => promises.rename(from, to),
  unlink: (path) => ignoring("ENOENT", promises.unlink(path)),
  syncFolder: async (path) => {
    const folder = await promises.open(path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  },
  freeBytes: async (path) => {
    const figures = await promises.statfs(path);
    return figures.bavail * figures.bsize;
  },
};
