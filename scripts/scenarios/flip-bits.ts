import { closeSync, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { codeOf } from "../../common/errors.ts";
import { seededRandom } from "../../common/random.ts";

/** One bit in so many bytes, so that small files have one too often enough. */
const EVERY_BYTES = 64 * 1024;

/** Undefined where it was removed meanwhile. */
const openFile = (path: string): number | undefined => {
  try {
    return openSync(path, "r+");
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return undefined;
    throw thrown;
  }
};

/** Flips bits all over files, as a dying disk might, but in what is nothing but zeros; how many. */
export const flipBits = (paths: readonly string[], seed: number): number => {
  const random = seededRandom(BigInt(seed));
  const byte = Buffer.alloc(1);
  let flipped = 0;
  for (const path of paths) {
    const file = openFile(path);
    if (file === undefined) continue;
    try {
      const { size } = fstatSync(file);
      for (let from = 0; from < size; from += EVERY_BYTES) {
        const at = from + random.below(Math.min(EVERY_BYTES, size - from));
        readSync(file, byte, 0, 1, at);
        if (byte[0] === 0) continue;
        writeSync(file, Buffer.of((byte[0] ?? 0) ^ (1 << random.below(8))), 0, 1, at);
        flipped += 1;
      }
    } finally {
      closeSync(file);
    }
  }
  return flipped;
};
