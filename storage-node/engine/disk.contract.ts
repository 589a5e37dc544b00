import { AssertionError } from "node:assert";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DIRECT_UNIT_BYTES, type Disk } from "../../common/disk.ts";
import { codeOf } from "../../common/errors.ts";

const UNIT = DIRECT_UNIT_BYTES;

const codeOfFailure = (doing: Promise<unknown>): Promise<string | undefined> =>
  doing.then(
    () => "none",
    (error: unknown) => codeOf(error),
  );

/** What every disk promises; `use` gives one and a folder on it. */
export const diskContract = (
  name: string,
  use: (doing: (disk: Disk, folder: string) => Promise<void>) => Promise<void>,
) => {
  test(`${name}: what is absent is not opened, and what exists is not created`, () =>
    use(async (disk, folder) => {
      const path = join(folder, "a");
      for (const mode of ["existing", "write-through", "direct", "direct-write-through"] as const) {
        expect(await codeOfFailure(disk.open(path, mode))).toBe("ENOENT");
      }
      await (await disk.open(path, "create")).close();
      for (const mode of ["create", "create-direct"] as const) {
        expect(await codeOfFailure(disk.open(path, mode))).toBe("EEXIST");
      }
      await disk.rename(path, join(folder, "b"));
      expect(await disk.list(folder)).toEqual(["b"]);
      await disk.unlink(join(folder, "b"));
      await disk.unlink(join(folder, "b"));
      expect(await disk.kindOf(join(folder, "b"))).toBe("absent");
    }));

  test(`${name}: a direct file and a cached opening of it see what the other one wrote`, () =>
    use(async (disk, folder) => {
      const path = join(folder, "a");
      const memory = disk.directMemory(4 * UNIT);
      const direct = await disk.open(path, "create-direct");
      memory.fill(1, 0, 2 * UNIT);
      await direct.write(memory.subarray(0, 2 * UNIT), 0);
      memory.fill(2, 0, UNIT);
      await direct.write(memory.subarray(0, UNIT), 2 * UNIT);
      await direct.sync();
      const cached = await disk.open(path, "existing");
      const found = new Uint8Array(3 * UNIT);
      expect(await cached.read([found], 0)).toBe(3 * UNIT);
      expect(found).toEqual(new Uint8Array(3 * UNIT).fill(1, 0, 2 * UNIT).fill(2, 2 * UNIT));
      await cached.write(new Uint8Array([7]), UNIT + 5);
      await direct.close();
      const through = await disk.open(path, "direct-write-through");
      await through.write(memory.subarray(0, UNIT), 0);
      await through.close();
      expect(await cached.read([found], 0)).toBe(3 * UNIT);
      expect(found.subarray(0, UNIT)).toEqual(new Uint8Array(UNIT).fill(2));
      const again = await disk.open(path, "direct");
      expect(await again.read([memory.subarray(3 * UNIT)], UNIT)).toBe(UNIT);
      expect(memory.subarray(3 * UNIT)).toEqual(new Uint8Array(UNIT).fill(1).fill(7, 5, 6));
      expect(again.readSync(memory.subarray(0, UNIT), UNIT)).toBe(UNIT);
      expect(memory[5]).toBe(7);
      await again.close();
      await cached.close();
    }));

  test(`${name}: a direct read ends where the file does, be it within a unit`, () =>
    use(async (disk, folder) => {
      const path = join(folder, "a");
      const file = await disk.open(path, "create");
      await file.write(new Uint8Array(2 * UNIT + 100).fill(3), 0);
      await file.close();
      const direct = await disk.open(path, "direct");
      const memory = disk.directMemory(4 * UNIT);
      const halves = [memory.subarray(0, 2 * UNIT), memory.subarray(2 * UNIT)];
      expect(await direct.read(halves, 0)).toBe(2 * UNIT + 100);
      expect(memory.subarray(0, 2 * UNIT + 101)).toEqual(new Uint8Array(2 * UNIT + 101).fill(3, 0, 2 * UNIT + 100));
      expect(await direct.read([memory], 2 * UNIT)).toBe(100);
      expect(direct.readSync(memory, UNIT)).toBe(UNIT + 100);
      expect(await direct.read([memory], 4 * UNIT)).toBe(0);
      expect(await direct.size()).toBe(2 * UNIT + 100);
      await direct.close();
    }));

  test(`${name}: a misplaced direct transfer is a programmer's error`, () =>
    use(async (disk, folder) => {
      const file = await disk.open(join(folder, "a"), "create-direct");
      const memory = disk.directMemory(3 * UNIT);
      for (const [bytes, offset] of [
        [memory.subarray(0, UNIT), 512],
        [memory.subarray(0, 100), 0],
        [memory.subarray(512, 512 + UNIT), 0],
      ] as const) {
        await expect(file.write(bytes, offset)).rejects.toThrow(AssertionError);
        await expect(file.read([bytes], offset)).rejects.toThrow(AssertionError);
        expect(() => file.readSync(bytes, offset)).toThrow(AssertionError);
      }
      expect(await file.size()).toBe(0);
      await file.close();
    }));
};
