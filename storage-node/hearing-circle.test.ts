import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { saveRing } from "../ring/ring-file.ts";
import { createRing, type Ring } from "../ring/ring.ts";
import { circleOfRings } from "./hearing-circle.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-circle-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const ringOf = (version: number, ...nodes: readonly string[]): Ring =>
  createRing({
    version,
    hashSeed: 1n,
    partitionPower: 1,
    replicas: 1,
    devices: nodes.map((node, id) => ({ id, region: 1, zone: 1, node, device: "d1", weight: 1 })),
    assignments: Uint16Array.of(0, 0),
  });

test("devices of the rings have to answer, those of the beginning are asked as well, and a ring that was replaced is read again", () => {
  const [object, container] = ["object.ring", "container.ring"].map((name) => join(folder, name)) as [string, string];
  saveRing(object, ringOf(1, "a", "b"));
  saveRing(container, ringOf(1, "a"));
  const circle = circleOfRings([object, container], [ringOf(1, "z")]);
  expect(circle()).toEqual({ required: ["a/d1", "b/d1", "a/d1"], others: ["z/d1"] });
  saveRing(container, ringOf(2, "c"));
  expect(circle()).toEqual({ required: ["a/d1", "b/d1", "c/d1"], others: ["z/d1"] });
});

test("where a ring cannot be read it is not known whom to ask: it may name devices that no other one does", () => {
  const path = join(folder, "object.ring");
  saveRing(path, ringOf(1, "a", "b"));
  const circle = circleOfRings([path], [ringOf(1, "a")]);
  expect(circle().unread).toBeUndefined();
  writeFileSync(path, "something else");
  expect(circle()).toEqual({ required: ["a/d1"], others: ["a/d1"], unread: expect.stringContaining(path) });
  saveRing(path, ringOf(2, "a", "b"));
  expect(circle()).toEqual({ required: ["a/d1", "b/d1"], others: ["a/d1"] });
});
