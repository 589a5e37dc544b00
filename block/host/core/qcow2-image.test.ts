import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { emptyImage, emptyImageBytes, imageBytesLimit } from "./qcow2-image.ts";

const run = promisify(execFile);
const [MIB, GIB, TIB] = [1024 ** 2, 1024 ** 3, 1024 ** 4];

const written = async (virtualBytes: number): Promise<string> => {
  const folder = mkdtempSync(join(tmpdir(), "rs-qcow2-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "image");
  writeFileSync(path, "");
  truncateSync(path, emptyImageBytes(virtualBytes));
  const file = await open(path, "r+");
  for (const { offset, bytes } of emptyImage(virtualBytes)) await file.write(bytes, 0, bytes.length, offset);
  await file.close();
  return path;
};

test.each([512, MIB, GIB, 100 * GIB, 16 * TIB])(
  "QEMU finds nothing wrong with an empty image of %i bytes",
  async (size) => {
    const path = await written(size);
    const { stdout } = await run("qemu-img", ["check", "--output=json", "-f", "qcow2", path]);
    expect(JSON.parse(stdout)).toMatchObject({ "check-errors": 0 });
    const info = JSON.parse((await run("qemu-img", ["info", "--output=json", path])).stdout) as object;
    expect(info).toMatchObject({
      format: "qcow2",
      "virtual-size": size,
      "format-specific": { data: { corrupt: false } },
    });
    expect(info).not.toHaveProperty("backing-filename");
  },
);

test("a full image has room within its limit", async () => {
  const size = 64 * MIB;
  const path = await written(size);
  await run("qemu-io", ["-f", "qcow2", "-c", `write -P 1 0 ${size}`, path]);
  expect(statSync(path).size).toBeLessThanOrEqual(imageBytesLimit(size));
  expect(imageBytesLimit(size)).toBeLessThan(size * 1.02);
});

test.each([GIB, 100 * GIB, TIB])("the limit of %i bytes is at least what QEMU measures", async (size) => {
  const words = ["measure", "--output=json", "-O", "qcow2", "--size", String(size)];
  const { "fully-allocated": measured } = JSON.parse((await run("qemu-img", words)).stdout) as Record<string, number>;
  expect(imageBytesLimit(size)).toBeGreaterThanOrEqual(measured ?? Infinity);
  expect(imageBytesLimit(size)).toBeLessThan((measured ?? 0) * 1.01);
});
