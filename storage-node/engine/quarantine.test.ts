import { expect, test } from "vitest";
import { SimulatedDisk } from "../../common/simulation/disk.ts";
import { alteredDisk } from "./engine-fixture.ts";
import { devicePaths } from "./paths.ts";
import { encodeQuarantined, Quarantine } from "./quarantine.ts";

const paths = devicePaths("/d");
const finding = { key: "k", cause: "found by a test", atMs: 0 };

const folder = async (): Promise<SimulatedDisk> => {
  const disk = new SimulatedDisk();
  await disk.makeFolder("/d");
  return disk;
};

test("a file of damaged bytes begins with a line that says what they are", () => {
  const bytes = encodeQuarantined(finding, [
    { file: "00000001.log", offset: 8192, bytes: Buffer.from("abc") },
    { file: "00000002.log", offset: 0, bytes: undefined },
  ]);
  expect(bytes.toString()).toBe(
    '{"format":1,"at":"1970-01-01T00:00:00.000Z","key":"k","cause":"found by a test","pieces":[' +
      '{"file":"00000001.log","offset":8192,"length":3,"isReadable":true},' +
      '{"file":"00000002.log","offset":0,"length":0,"isReadable":false}]}\nabc',
  );
});

test("what is set aside is bounded by bytes and count, the oldest goes first, also after a restart", async () => {
  const disk = await folder();
  const large = { file: "a", offset: 0, bytes: Buffer.alloc(5 * 1024 * 1024, 1) };
  let quarantine = new Quarantine(disk, paths, 0);
  for (let index = 0; index < 10; index++) await quarantine.setAside(finding, [large]);
  quarantine = new Quarantine(disk, paths, 0);
  for (let index = 0; index < 10; index++) await quarantine.setAside(finding, [large]);
  const names = await disk.list("/d/quarantine");
  // 4 MiB of each, and their lines.
  expect([names.length, names[0]]).toEqual([15, "00000006.damaged"]);
  for (let index = 0; index < 300; index++) await quarantine.setAside(finding, []);
  expect((await disk.list("/d/quarantine")).length).toBe(256);
});

test("a device without space, or whose disk fails, sets nothing aside and goes on", async () => {
  const disk = await folder();
  disk.capacity = 1000;
  await new Quarantine(disk, paths, 2000).setAside(finding, []);
  expect(await disk.list("/d/quarantine")).toEqual([]);
  const failing = alteredDisk(disk, { open: () => Promise.reject(new Error("EIO")) });
  await new Quarantine(failing, paths, 0).setAside(finding, []);
  expect(await disk.list("/d/quarantine")).toEqual([]);
});
