import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { silentLog } from "../../common/log.ts";
import { seededRandom } from "../../common/random.ts";
import { addDevice, buildRing, createBuilder } from "../../ring/builder.ts";
import { rebalance } from "../../ring/rebalance.ts";
import { loadRing, saveRing } from "../../ring/ring-file.ts";
import type { RingData } from "../../ring/device.ts";
import { TargetRings } from "./target-rings.ts";

let folder = "";
let first: RingData;
const pathOf = (space: string): string => join(folder, `${space}.ring`);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-targets-"));
  const builder = createBuilder({ partitionPower: 4, replicas: 2, minPartHours: 0, seed: 3n });
  for (const node of ["a", "b", "c"]) addDevice(builder, { region: 1, zone: 1, node, device: "d1", weight: 1 });
  rebalance(builder, { random: seededRandom(1n), nowMs: 0 });
  first = buildRing(builder);
  for (const space of ["account", "container", "object"]) saveRing(pathOf(space), first);
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (): TargetRings => {
  const ring = loadRing(pathOf("object"));
  const checkKnown = ({ devices }: RingData): void => {
    if (devices.some((device) => device?.node === "x"))
      throw new RingsteadError("ring-names-unknown-node", "cluster.toml has no table [node.x]");
  };
  return new TargetRings({
    base: { account: ring, container: ring, object: ring },
    pathOf,
    checkKnown,
    log: silentLog,
  });
};

test("a ring of a higher version that is put in place counts from then on, the other rings stay", () => {
  const targets = open();
  targets.look();
  expect(targets.changes).toBe(0);
  const assignments = first.assignments.toReversed();
  saveRing(pathOf("object"), { ...first, version: first.version + 1, assignments });
  targets.look();
  expect([targets.changes, targets.refusalOf("object")]).toEqual([1, undefined]);
  expect(targets.ringOf("object").assignments).toEqual(assignments);
  expect(targets.ringOf("account").version).toBe(first.version);
});

test.each([
  ["of a lower version", { version: 1 }, "it has version 1, and version"],
  ["of the same version that says something else", { assignments: "reversed" }, "it is another ring of version"],
  ["of another installation", { version: 99, hashSeed: 4n }, "it is of another installation"],
  ["with other partitions", { version: 99, partitionPower: 3 }, "the ring has 3 as its partition power"],
  ["with a node that nobody knows", { version: 99, node: "x" }, "no table [node.x]"],
] as const)("a ring %s is refused, and the one before goes on counting", (_what, change, words) => {
  const targets = open();
  const version = "version" in change ? change.version : first.version;
  const fewer = "partitionPower" in change ? { partitionPower: 3, assignments: first.assignments.slice(0, 16) } : {};
  const reversed = "assignments" in change ? { assignments: first.assignments.toReversed() } : {};
  const seed = "hashSeed" in change ? { hashSeed: change.hashSeed } : {};
  const devices = first.devices.map((device) =>
    device !== undefined && "node" in change ? { ...device, node: change.node } : device,
  );
  const unnamed = "node" in change ? { devices: devices.slice(0, 1).concat(first.devices.slice(1)) } : {};
  saveRing(pathOf("object"), { ...first, version, ...fewer, ...reversed, ...seed, ...unnamed });
  targets.look();
  expect(targets.refusalOf("object")).toContain(words);
  expect(targets.ringOf("object").assignments).toEqual(first.assignments);
  expect(targets.changes).toBe(0);
  saveRing(pathOf("object"), first);
  targets.look();
  expect(targets.refusalOf("object")).toBeUndefined();
});

test("a file that is no ring any more is refused, and the ring before goes on counting", () => {
  const targets = open();
  writeFileSync(pathOf("container"), "not a ring");
  targets.look();
  expect(targets.refusalOf("container")).toContain("container.ring");
  expect(targets.ringOf("container").version).toBe(first.version);
});

test("a file that cannot be followed at the start is refused, the base counts, and the next good one is taken", () => {
  const base = loadRing(pathOf("object"));
  writeFileSync(pathOf("container"), "no ring");
  const targets = new TargetRings({
    base: { account: base, container: base, object: base },
    pathOf,
    checkKnown: () => {},
    log: silentLog,
  });
  expect(targets.refusalOf("container")).not.toBe(undefined);
  expect(targets.ringOf("container")).toBe(base);
  expect(targets.refusalOf("account")).toBe(undefined);
  saveRing(pathOf("container"), { ...first, version: first.version + 1 });
  targets.look();
  expect([targets.refusalOf("container"), targets.ringOf("container").version]).toEqual([undefined, first.version + 1]);
});
