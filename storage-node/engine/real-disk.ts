import * as fs from "node:fs";
import * as promises from "node:fs/promises";
import { codeOf } from "../../common/errors.ts";
import { DIRECT_READ_LIMIT_BYTES, ReadMode } from "./read-mode.ts";
import { DIRECT_UNIT_BYTES, type Disk, type DiskFile, type OpenMode, assertDirect } from "../../common/disk.ts";

/** Types of the global that Node has: the library that TypeScript declares it in is the browser's. */
declare const WebAssembly: {
  readonly Memory: new (descriptor: { readonly initial: number }) => { readonly buffer: ArrayBuffer };
};

const WEB_ASSEMBLY_PAGE_BYTES = 65_536;

const FLAGS: Readonly<Record<OpenMode, string | number>> = {
  create: "wx+",
  "create-direct": fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_DIRECT,
  direct: fs.constants.O_RDWR | fs.constants.O_DIRECT,
  "direct-write-through": fs.constants.O_RDWR | fs.constants.O_DSYNC | fs.constants.O_DIRECT,
  existing: "r+",
  "write-through": fs.constants.O_RDWR | fs.constants.O_DSYNC,
};

/** For the direct ones: how to open where the file system cannot. The kernel makes a file before it asks whether it can be direct. */
const CACHED_FLAGS: Readonly<Partial<Record<OpenMode, string | number>>> = {
  "create-direct": fs.constants.O_RDWR | fs.constants.O_CREAT,
  direct: FLAGS.existing,
  "direct-write-through": FLAGS["write-through"],
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
        if (!readAtOnce(descriptor, only, offset, resolve, reject))
          readOne(descriptor, only, offset, 1, resolve, reject);
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
  readSync: (buffer, offset) => readSync(descriptor, buffer, offset, 1),
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

/**
 * A file past the page cache. Some file systems refuse that when it is opened, others at the first transfer, and the rest of a transfer
 * cut short is refused by all of them: from then on the file goes through the page cache. A sync covers what either way wrote.
 */
const directFile = (path: string, descriptor: number, cachedFlags: string | number): DiskFile => {
  const direct = realFile(descriptor);
  let cached: DiskFile | undefined;
  const instead = (error: unknown): DiskFile => {
    if (codeOf(error) !== "EINVAL") throw error;
    cached ??= realFile(fs.openSync(path, cachedFlags));
    return cached;
  };
  const readBuffer = (buffer: Uint8Array, offset: number): Promise<number> => {
    assertDirect(buffer, offset);
    if (cached !== undefined) return cached.read([buffer], offset);
    return new Promise<number>((resolve, reject) => {
      readOne(descriptor, buffer, offset, DIRECT_UNIT_BYTES, resolve, reject);
    }).catch((error: unknown) => instead(error).read([buffer], offset));
  };
  return {
    size: () => direct.size(),
    read: async (buffers, offset) => {
      let done = 0;
      for (const buffer of buffers) {
        const count = await readBuffer(buffer, offset + done);
        done += count;
        if (count < buffer.length) break;
      }
      return done;
    },
    readSync: (buffer, offset) => {
      assertDirect(buffer, offset);
      if (cached !== undefined) return cached.readSync(buffer, offset);
      try {
        return readSync(descriptor, buffer, offset, DIRECT_UNIT_BYTES);
      } catch (error) {
        return instead(error).readSync(buffer, offset);
      }
    },
    write: async (bytes, offset) => {
      assertDirect(bytes, offset);
      if (cached !== undefined) return cached.write(bytes, offset);
      return direct.write(bytes, offset).catch((error: unknown) => instead(error).write(bytes, offset));
    },
    sync: () => direct.sync(),
    close: async () => {
      await direct.close();
      await cached?.close();
    },
  };
};

const readMode = new ReadMode();

/** `unit`: a read that ends within one has met the end of the file; asking on from there would be misplaced in a direct one. */
const readSync = (descriptor: number, buffer: Uint8Array, offset: number, unit: number): number => {
  let done = 0;
  while (done < buffer.length) {
    const count = fs.readSync(descriptor, buffer, done, buffer.length - done, offset + done);
    done += count;
    if (count === 0 || count % unit !== 0) break;
  }
  return done;
};

/** Whether the read was made at once. */
const readAtOnce = (
  descriptor: number,
  buffer: Uint8Array,
  offset: number,
  resolve: (count: number) => void,
  reject: (error: unknown) => void,
): boolean => {
  const startMs = performance.now();
  if (buffer.length > DIRECT_READ_LIMIT_BYTES || !readMode.isDirect(startMs)) return false;
  try {
    resolve(readSync(descriptor, buffer, offset, 1));
  } catch (error) {
    reject(error);
  }
  const endMs = performance.now();
  readMode.took(endMs - startMs, endMs);
  return true;
};

/** `read` costs less than `readv` with one buffer. `unit` as in `readSync`. */
const readOne = (
  descriptor: number,
  buffer: Uint8Array,
  offset: number,
  unit: number,
  resolve: (count: number) => void,
  reject: (error: Error) => void,
): void => {
  let done = 0;
  const next = (error: Error | null, count: number): void => {
    if (error !== null) return reject(error);
    done += count;
    if (count === 0 || count % unit !== 0 || done === buffer.length) return resolve(done);
    fs.read(descriptor, buffer, done, buffer.length - done, offset + done, next);
  };
  fs.read(descriptor, buffer, 0, buffer.length, offset, next);
};

const openFile = (path: string, flags: string | number): Promise<number> =>
  new Promise((resolve, reject) => {
    fs.open(path, flags, 0o600, (error, descriptor) => (error === null ? resolve(descriptor) : reject(error)));
  });

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
  open: async (path, mode) => {
    const cachedFlags = CACHED_FLAGS[mode];
    if (cachedFlags === undefined) return realFile(await openFile(path, FLAGS[mode]));
    try {
      return directFile(path, await openFile(path, FLAGS[mode]), cachedFlags);
    } catch (error) {
      if (codeOf(error) !== "EINVAL") throw error;
    }
    return realFile(await openFile(path, cachedFlags));
  },
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
  // Memory of WebAssembly begins at a page, which a Buffer's does not.
  directMemory: (bytes) => {
    const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(bytes / WEB_ASSEMBLY_PAGE_BYTES) });
    return new Uint8Array(buffer, 0, bytes);
  },
};
