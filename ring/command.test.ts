import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { baseRingPath, keepBaseRing } from "./base-ring.ts";
import { moveStatusText } from "./move-status.ts";
import { loadBuilder } from "./builder-file.ts";
import { ringCommand } from "./command.ts";
import { loadRing } from "./ring-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-ring-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const run = async (...argv: string[]): Promise<{ code: number; out: string; error: string }> => {
  const written = { out: "", error: "" };
  const code = await ringCommand(argv, {
    out: (text) => {
      written.out += text;
    },
    error: (text) => {
      written.error += text;
    },
  });
  return { code, ...written };
};

const builderPath = () => join(folder, "object.builder");
const ringPath = () => join(folder, "object.ring");

const createRingOf = async (deviceCount: number): Promise<void> => {
  const create = await run("create", builderPath(), "--partition-power", "6", "--replicas", "3", "--hash-seed", "abc");
  expect(create).toMatchObject({ code: 0, error: "" });
  for (let index = 1; index <= deviceCount; index += 1) {
    const place = ["--zone", `${index}`, "--node", "n1", "--device", `d${index}`, "--weight", "100"];
    expect(await run("add", builderPath(), ...place)).toMatchObject({ code: 0, error: "" });
  }
  expect(await run("rebalance", builderPath(), "--seed", "1")).toMatchObject({ code: 0, error: "" });
};

describe("ringstead ring", () => {
  it("creates, adds, rebalances, and writes a ring that loads", async () => {
    await createRingOf(4);
    const ring = loadRing(ringPath());
    expect(ring).toMatchObject({ partitionPower: 6, replicas: 3, hashSeed: 0xabcn });
    expect(ring.version).toBe(loadBuilder(builderPath()).version);
    expect(readdirSync(folder).sort()).toEqual(["object.builder", "object.ring"]);
  });

  it("waits for min_part_hours unless forced", async () => {
    await createRingOf(4);
    const add = async (name: string) =>
      await run("add", builderPath(), "--zone", "9", "--node", "n9", "--device", name, "--weight", "400");
    await add("d5");
    expect((await run("rebalance", builderPath())).out).toMatch(/, [1-9][0-9]* replicas moved/);
    await add("d6");
    const waiting = Number(/([0-9]+) replicas moved/.exec((await run("rebalance", builderPath())).out)?.[1]);
    const forced = Number(/([0-9]+) replicas moved/.exec((await run("rebalance", builderPath(), "--force")).out)?.[1]);
    expect(waiting).toBeGreaterThanOrEqual(0);
    expect(forced).toBeGreaterThan(0);
  });

  it("writes a ring with moves also under an installation, which has to begin with the same partitions and replicas", async () => {
    writeFileSync(join(folder, "layout-version"), "1\n");
    mkdirSync(join(folder, "rings"));
    const builder = join(folder, "rings/object.builder");
    const ring = join(folder, "rings/object.ring");
    await run("create", builder, "--partition-power", "4", "--replicas", "2");
    const add = (name: string) => run("add", builder, "--node", "n", "--device", name, "--weight", "1");
    for (const name of ["d1", "d2"]) await add(name);
    expect((await run("rebalance", builder)).code).toBe(0);
    keepBaseRing(ring);
    const base = readFileSync(baseRingPath(ring));
    await add("d3");
    expect((await run("rebalance", builder, "--force", "--plan")).out).toMatch(/[1-9][0-9]* replicas moved/);
    expect(readFileSync(ring).equals(base)).toBe(true);
    expect((await run("rebalance", builder)).code).toBe(0);
    expect(new Set(loadRing(ring).assignments)).toEqual(new Set([0, 1, 2]));
    expect(readFileSync(baseRingPath(ring)).equals(base)).toBe(true);
    keepBaseRing(ring);
    expect(readFileSync(baseRingPath(ring)).equals(base)).toBe(true);
    expect((await run("increase-part-power", builder)).error).toContain(
      "the ring has 5 as its partition power, and the installation began with 4",
    );
    await run("set-replicas", builder, "3");
    expect((await run("rebalance", builder, "--force")).error).toContain(
      "the ring has 3 replicas, and the installation began with 2",
    );
  });

  it("says in its status where the base of this node is not that of others, and exits with 1", async () => {
    mkdirSync(join(folder, "rings"));
    for (const name of ["account", "container", "object-0"]) {
      const builder = join(folder, `rings/${name}.builder`);
      await run("create", builder, "--partition-power", "4", "--replicas", "1");
      await run("add", builder, "--node", "n", "--device", "d1", "--weight", "1");
      expect((await run("rebalance", builder)).code).toBe(0);
    }
    const ring = { version: loadRing(join(folder, "rings/account.ring")).version, toMove: 0, moving: 0, done: 0 };
    const rings = Object.fromEntries(
      ["account", "container", "object-0"].map((name) => [name, { ...ring, entriesToRelease: 0 }]),
    );
    const status = { at: "2026-01-01T00:00:00Z", isMover: false, rings };
    writeFileSync(join(folder, "rings/moves.json"), moveStatusText(status));
    expect(await run("status", "--data", folder)).toMatchObject({ code: 0 });
    const other = { ...rings, container: { ...ring, entriesToRelease: 0, otherBase: "n2/d1" } };
    writeFileSync(join(folder, "rings/moves.json"), moveStatusText({ ...status, rings: other }));
    const { code, out } = await run("status", "--data", folder);
    expect(code).toBe(1);
    expect(out).toContain("the base of this node is another one than that of n2/d1: copy DIR/rings/*.base");
  });

  it("sets replicas, fractions too, and says how many partitions have how many", async () => {
    await createRingOf(5);
    expect((await run("set-replicas", builderPath(), "2.5")).out).toMatch(
      /2\.5 replicas \(3 of 32 partitions, 2 of 32\)/,
    );
    expect((await run("rebalance", builderPath(), "--force")).code).toBe(0);
    const ring = loadRing(ringPath());
    expect(ring.replicas).toBe(2.5);
    expect([ring.primaries(0).length, ring.primaries(63).length]).toEqual([3, 2]);
    const [first = ""] = (await run("show", ringPath())).out.split("\n");
    expect(first).toContain("replicas 2.5");
    const percent = [...(await run("show", ringPath())).out.matchAll(/ ([0-9.]+)$/gm)].map((match) => Number(match[1]));
    expect(percent.reduce((sum, one) => sum + one, 0)).toBeCloseTo(100, 0);
    expect(await run("set-replicas", builderPath(), "17")).toMatchObject({
      code: 1,
      error: "replicas must be a number from 1 to 16, not 17\n",
    });
  });

  it("sets the overload, in force with the next rebalance", async () => {
    await createRingOf(4);
    expect((await run("set-overload", builderPath(), "0.1")).out).toMatch(/may take 10 % over its share/);
    expect(loadBuilder(builderPath()).overload).toBe(0.1);
    expect((await run("set-overload", builderPath(), "11")).error).toBe(
      "overload must be a number from 0 to 10, not 11\n",
    );
  });

  it("doubles the partitions and writes the ring, also under an installation, for nothing moves", async () => {
    mkdirSync(join(folder, "rings"));
    const builder = join(folder, "rings/object.builder");
    const ring = join(folder, "rings/object.ring");
    await run("create", builder, "--partition-power", "4", "--replicas", "2");
    const add = (name: string) => run("add", builder, "--node", "n", "--device", name, "--weight", "1");
    for (const name of ["d1", "d2", "d3"]) await add(name);
    await run("rebalance", builder);
    writeFileSync(join(folder, "layout-version"), "1\n");
    const before = loadRing(ring);
    const increased = await run("increase-part-power", builder);
    expect(increased).toMatchObject({ code: 0, error: "" });
    expect(increased.out).toMatch(/partition power 5, nothing moves/);
    const after = loadRing(ring);
    expect(after.version).toBeGreaterThan(before.version);
    for (let partition = 0; partition < 32; partition += 1)
      expect(after.primaries(partition)).toEqual(before.primaries(partition >> 1));
    await add("d4");
    await run("rebalance", builder, "--force", "--plan");
    expect((await run("increase-part-power", builder)).error).toContain(
      "that stays while data has moved or is to move",
    );
    expect(loadBuilder(builder).partitionPower).toBe(5);
  });

  it("gives each ring that it writes a higher version, also from an older copy of the builder", async () => {
    await createRingOf(4);
    const old = readFileSync(builderPath());
    await run("weight", builderPath(), "0", "50");
    await run("weight", builderPath(), "1", "300");
    await run("rebalance", builderPath(), "--force");
    const { version } = loadRing(ringPath());
    writeFileSync(builderPath(), old);
    await run("weight", builderPath(), "3", "500");
    expect(loadBuilder(builderPath()).version).toBeLessThan(version);
    await run("rebalance", builderPath(), "--force");
    expect(loadRing(ringPath()).version).toBe(version + 1);
    expect(loadBuilder(builderPath()).version).toBe(version + 1);
  });

  it("does not write over the ring of another builder, but over a damaged one", async () => {
    await createRingOf(4);
    const other = join(folder, "other.builder");
    await run("create", other, "--partition-power", "6", "--replicas", "1", "--hash-seed", "def");
    await run("add", other, "--node", "n", "--device", "d1", "--weight", "1");
    expect((await run("rebalance", other, "--ring", ringPath())).error).toMatch(/different hash seeds/);
    expect(loadRing(ringPath()).hashSeed).toBe(0xabcn);
    writeFileSync(ringPath(), readFileSync(ringPath()).subarray(0, -1));
    expect((await run("rebalance", builderPath())).code).toBe(0);
    expect(loadRing(ringPath()).replicas).toBe(3);
  });

  it("a device that is removed and added again is a new one, and only its own share moves", async () => {
    await createRingOf(5);
    const held = loadBuilder(builderPath()).assignments.filter((id) => id === 4).length;
    await run("remove", builderPath(), "4");
    const again = ["--zone", "5", "--node", "n1", "--device", "d5", "--weight", "100"];
    expect((await run("add", builderPath(), ...again)).out).toMatch(/device 5 added/);
    expect((await run("rebalance", builderPath(), "--seed", "2")).out).toContain(`, ${held} replicas moved`);
    expect(loadBuilder(builderPath()).assignments.filter((id) => id === 5)).toHaveLength(held);
    expect((await run("add", builderPath(), ...again)).error).toBe("device n1/d5 is there already, as device 5\n");
  });

  it("writes the damaged ring of an installation anew when it is told to, above the version that is followed, and says so else", async () => {
    const rings = join(folder, "rings");
    mkdirSync(rings);
    writeFileSync(join(folder, "layout-version"), "1\n");
    const [builder, ring] = [join(rings, "object-0.builder"), join(rings, "object-0.ring")];
    await run("create", builder, "--partition-power", "6", "--replicas", "3", "--hash-seed", "abc");
    for (const index of [1, 2, 3, 4])
      await run("add", builder, "--node", "n1", "--device", `d${index}`, "--weight", "100");
    expect(await run("rebalance", builder)).toMatchObject({ code: 0 });
    keepBaseRing(ring);
    const moves = { toMove: 0, moving: 0, done: 0, entriesToRelease: 0 };
    const status = { at: "2026-01-01T00:00:00.000Z", isMover: false, rings: { "object-0": { ...moves, version: 17 } } };
    writeFileSync(join(rings, "moves.json"), moveStatusText(status));
    const before = loadRing(ring);
    for (const altered of [readFileSync(ring).subarray(0, -1), Buffer.from("something else")]) {
      writeFileSync(ring, altered);
      const refused = await run("rebalance", builder);
      expect(refused).toMatchObject({ code: 1, out: "" });
      expect(refused.error).toContain(`write it anew: ./scripts/ringstead ring rebalance ${builder} --rewrite`);
      expect(readFileSync(ring)).toEqual(altered);
      expect(await run("rebalance", builder, "--rewrite")).toMatchObject({ code: 0, error: "" });
      expect(loadRing(ring).version).toBeGreaterThan(17);
      expect(loadRing(ring).assignments).toEqual(before.assignments);
    }
    expect(loadBuilder(builder).version).toBe(loadRing(ring).version);
  });

  it("reports dispersion, as a table and as JSON", async () => {
    await createRingOf(4);
    const { out } = await run("dispersion", builderPath());
    expect(out).toMatch(
      /0\.00 % of partitions are not as far apart as the weights allow; the weights allow what the devices allow/,
    );
    expect(out).toMatch(/^region 1 zone 4 +0 to 1 +0 +16 +48 +0 +0$/m);
    expect(out).not.toContain("n1");
    expect((await run("dispersion", builderPath(), "--nodes")).out).toMatch(/^region 1 zone 4 n1 +0 to 1/m);
    const report = JSON.parse((await run("dispersion", builderPath(), "--json")).out);
    expect(report.tiers).toHaveLength(9);
    for (const id of ["0", "1"]) await run("weight", builderPath(), id, "0");
    expect((await run("dispersion", builderPath())).error).toMatch(/3 replicas cannot be spread over .* there are 2/);
  });

  it("validates builders, with exit code 1 where one is wrong", async () => {
    await createRingOf(4);
    expect(await run("validate", builderPath())).toMatchObject({ code: 0, out: `${builderPath()} is right\n` });
    await run("weight", builderPath(), "3", "0");
    const noted = await run("validate", builderPath());
    expect(noted).toMatchObject({ code: 0 });
    expect(noted.out).toMatch(/^note: device 3 \(n1\/d4\) is to be emptied and holds 48$/m);
    await run("remove", builderPath(), "0");
    const wrong = await run("validate", builderPath());
    expect(wrong).toMatchObject({ code: 1 });
    expect(wrong.out).toMatch(/^wrong: 48 of 192 replicas have no device: rebalance$/m);
    expect(wrong.out).toMatch(/^wrong: 3 replicas need 3 devices with weight, there are 2$/m);
    expect(wrong.out).toMatch(/: 2 to put right$/m);
    expect((await run("validate", builderPath(), "--ring", join(folder, "none.ring"))).error).toMatch(/cannot read/);
  });

  it("weighs and removes devices", async () => {
    await createRingOf(5);
    expect((await run("weight", builderPath(), "0", "0")).code).toBe(0);
    expect((await run("remove", builderPath(), "4")).code).toBe(0);
    // A partition that had replicas on both gives up only one of them at a time.
    for (let round = 0; round < 2; round += 1) expect((await run("rebalance", builderPath(), "--force")).code).toBe(0);
    expect(new Set(loadRing(ringPath()).assignments)).toEqual(new Set([1, 2, 3]));
    expect(await run("remove", builderPath(), "4")).toMatchObject({ code: 1, error: "there is no device 4\n" });
  });

  it("shows builders and rings, as a table and as JSON", async () => {
    await createRingOf(4);
    for (const path of [builderPath(), ringPath()]) {
      expect((await run("show", path)).out).toMatch(/d4 +100 +25\.00 +48 +25\.00/);
      const shown = JSON.parse((await run("show", path, "--json")).out);
      expect(shown.devices).toHaveLength(4);
      expect(shown.devices[0]).toMatchObject({ id: 0, device: "d1", partitionReplicas: 48 });
    }
  });

  it("looks up names and hand-offs", async () => {
    await createRingOf(5);
    const lookup = await run("lookup", ringPath(), "AUTH_a", "c", "o/p");
    expect(lookup.out.match(/replica [012]: device/g)).toHaveLength(3);
    const partition = /partition ([0-9]+)/.exec(lookup.out)?.[1] ?? "";
    const byName = await run("handoffs", ringPath(), "AUTH_a", "c", "o/p");
    expect(byName.out.match(/hand-off [12]: device/g)).toHaveLength(2);
    expect(await run("handoffs", ringPath(), partition)).toEqual(byName);
    expect((await run("handoffs", ringPath(), partition, "--count", "1")).out.match(/hand-off/g)).toHaveLength(1);
  });

  it("answers wrong usage with the help and exit code 2", async () => {
    await createRingOf(4);
    for (const argv of [
      [],
      ["frobnicate"],
      ["create"],
      ["create", builderPath() + "2", "--replicas", "3"],
      ["create", builderPath() + "2", "--partition-power", "ten", "--replicas", "3"],
      ["create", builderPath() + "2", "--partition-power", "10", "--replicas", "3", "--hash-seed", "xyz"],
      ["add", builderPath(), "--node", "n"],
      ["add", builderPath(), "--colour", "red"],
      ["weight", builderPath(), "0"],
      ["weight", builderPath(), "0", "heavy"],
      ["rebalance", builderPath(), "extra"],
      ["set-replicas", builderPath()],
      ["set-replicas", builderPath(), "three"],
      ["set-overload", builderPath(), "much"],
      ["increase-part-power"],
      ["dispersion", builderPath(), "--tier", "1"],
      ["validate"],
      ["lookup", ringPath()],
      ["lookup", ringPath(), "a/c"],
      ["handoffs", ringPath(), "64"],
    ]) {
      const { code, error, out } = await run(...argv);
      expect(code, argv.join(" ")).toBe(2);
      expect(error).toMatch(/ring rebalance BUILDER/);
      expect(out).toBe("");
    }
    expect((await run("--help")).code).toBe(0);
  });

  it("answers what it refuses with one sentence and exit code 1", async () => {
    await createRingOf(4);
    expect(await run("create", builderPath(), "--partition-power", "6", "--replicas", "3")).toMatchObject({ code: 1 });
    expect((await run("show", join(folder, "none"))).error).toMatch(/cannot read .*none/);
    expect((await run("show", folder)).error).toMatch(/cannot read/);
    writeFileSync(ringPath(), readFileSync(ringPath()).subarray(0, -1));
    const cut = await run("lookup", ringPath(), "AUTH_a");
    expect(cut).toMatchObject({ code: 1, out: "" });
    expect(cut.error).toMatch(/object\.ring: this ring file is cut short or altered/);
    expect((await run("show", ringPath())).code).toBe(1);
    writeFileSync(join(folder, "text"), "just some text");
    expect((await run("show", join(folder, "text"))).error).toMatch(/is no ring builder file/);
    const away = join(folder, "away", "object.builder");
    expect((await run("create", away, "--partition-power", "6", "--replicas", "3")).error).toMatch(/cannot write/);
  });
});
