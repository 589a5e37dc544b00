import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { seededRandom } from "../common/random.ts";
import { addDevice, buildRing, type Builder, createBuilder } from "./builder.ts";
import { rebalance } from "./rebalance.ts";
import { loadRing, saveRing } from "./ring-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-ring-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const smallBuilder = (): Builder => {
  const builder = createBuilder({ partitionPower: 4, replicas: 2, minPartHours: 1, seed: 1n });
  for (const device of ["d1", "d2", "d3"]) addDevice(builder, { region: 1, zone: 1, node: "n", device, weight: 1 });
  rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
  return builder;
};

describe("saving a ring", () => {
  it("takes the place of the older one and leaves nothing else behind", () => {
    const path = join(folder, "object-0.ring");
    const builder = smallBuilder();
    saveRing(path, buildRing(builder));
    addDevice(builder, { region: 1, zone: 2, node: "m", device: "d1", weight: 1 });
    rebalance(builder, { random: seededRandom(1n), nowMs: 7_200_000 });
    saveRing(path, buildRing(builder));
    expect(loadRing(path).version).toBe(builder.version);
    expect(readdirSync(folder)).toEqual(["object-0.ring"]);
  });

  it("says why it cannot, and leaves nothing behind", () => {
    const ring = buildRing(smallBuilder());
    mkdirSync(join(folder, "taken"));
    writeFileSync(join(folder, "file"), "");
    for (const path of ["taken", "missing/a.ring", "file/a.ring"])
      expect(() => saveRing(join(folder, path), ring), path).toThrowError(
        expect.objectContaining({ code: "ring-file-unwritable", message: expect.stringContaining(path) }),
      );
    expect(readdirSync(folder).sort()).toEqual(["file", "taken"]);
  });
});

describe("loading a ring", () => {
  it("tells a missing file from one that cannot be read and from one that is something else", () => {
    writeFileSync(join(folder, "empty"), "");
    writeFileSync(join(folder, "text"), "replicas = 3\n");
    for (const [name, code] of [
      ["none", "ring-file-missing"],
      [".", "ring-file-unreadable"],
      ["empty", "ring-file-damaged"],
      ["text", "ring-file-foreign"],
    ] as const) {
      const path = join(folder, name);
      expect(() => loadRing(path), name).toThrowError(
        expect.objectContaining({ code, fields: expect.objectContaining({ path }) }),
      );
    }
  });
});
