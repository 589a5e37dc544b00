import { expect, test } from "vitest";
import {
  beginRestore,
  type Chains,
  chainOf,
  garbageOf,
  type Layer,
  NO_CHAINS,
  type Volume,
  withoutVolume,
} from "./chains.ts";
import { askFlatten, copied, copyOf, FLATTEN_ABOVE_LAYERS, isFlat, isReadFrom } from "./layer-copies.ts";

const MIB = 1024 * 1024;

const layer = (id: string, base?: string): Layer => ({
  id,
  pool: "p",
  format: base === undefined ? "raw" : "qcow2",
  virtualBytes: MIB,
  ...(base === undefined ? {} : { base }),
});
const volume = (id: string, top: string, ...snapshots: readonly (readonly [id: string, layer: string])[]): Volume => ({
  id,
  pool: "p",
  sizeBytes: MIB,
  top,
  snapshots: snapshots.map(([name, frozen]) => ({ id: name, layer: frozen, sizeBytes: MIB })),
});
const chainsOf = (layers: readonly Layer[], ...volumes: readonly Volume[]): Chains => ({
  ...NO_CHAINS,
  layers: new Map(layers.map((one) => [one.id, one])),
  volumes: new Map(volumes.map((one) => [one.id, one])),
});

/** `source` with a snapshot, and `copy`, which was made of that. */
const SHARED = chainsOf(
  [layer("base"), layer("own", "base"), layer("copied", "base")],
  volume("source", "own", ["snapshot", "base"]),
  volume("copy", "copied"),
);

test("a volume is made independent when somebody asks for it, and only then", () => {
  expect(isFlat(SHARED, "copy")).toBe(false);
  expect(copyOf(SHARED, "copy")).toBeUndefined();
  const asked = askFlatten(SHARED, "copy");
  expect(askFlatten(asked, "copy")).toBe(asked);
  const copy = copyOf(asked, "copy");
  expect(copy).toEqual({ kind: "flatten", layer: "copied", base: "base" });
  if (copy === undefined) return;
  const done = copied(asked, "copy", copy);
  expect(chainOf(done, "copied").map(({ id }) => id)).toEqual(["copied"]);
  expect(done.volumes.get("copy")).toEqual(volume("copy", "copied"));
  expect(isFlat(done, "copy")).toBe(true);
  expect(done.pending).toEqual([{ kind: "flatten", stage: "made", volumeId: "copy", layer: "copied", base: "base" }]);
  expect(askFlatten({ ...done, pending: [] }, "copy").volumes).toBe(done.volumes);
});

test("what a volume left behind for its snapshot is no copy's own", () => {
  const asked = askFlatten(SHARED, "source");
  const copy = copyOf(asked, "source");
  expect(copy).toEqual({ kind: "flatten", layer: "own", base: "base" });
  if (copy === undefined) return;
  const alone = { ...copied(asked, "source", copy), pending: [] };
  // Only the copy lies upon it now, and the snapshot of the source still is what it holds.
  expect(isFlat(alone, "copy")).toBe(false);
  expect(copyOf(alone, "copy")).toBeUndefined();
});

test("a wish that has come true by itself is none for later copies", () => {
  const chains = chainsOf(
    [layer("base"), layer("own", "base"), layer("copied", "base")],
    volume("source", "own"),
    volume("copy", "copied"),
  );
  const asked = askFlatten(chains, "copy");
  const { layers, ...rest } = withoutVolume(asked, "source");
  const alone = { ...rest, layers: new Map([...layers].filter(([id]) => id !== "own")) };
  expect(copyOf(alone, "copy")).toEqual({ kind: "merge", upper: "copied", lower: "base" });
  const merged = { ...copied(alone, "copy", { kind: "merge", upper: "copied", lower: "base" }), pending: [] };
  const again = {
    ...merged,
    layers: new Map([...merged.layers, ["a", layer("a", "base")] as const, ["b", layer("b", "base")] as const]),
    volumes: new Map([
      ...merged.volumes,
      ["copy", { ...volume("copy", "a"), leaving: "copied" }] as const,
      ["other", volume("other", "b")] as const,
    ]),
  };
  expect(isFlat(again, "copy")).toBe(false);
  expect(copyOf(again, "copy")).toBeUndefined();
});

test("a volume that reads through many layers of others is made independent by itself", () => {
  const ids = Array.from({ length: FLATTEN_ABOVE_LAYERS }, (_, index) => `layer${index}`);
  const layers = ids.map((id, index) => layer(id, ids[index - 1]));
  const lowest = ids.at(-1) ?? "";
  const frozen = ids.map((id): readonly [string, string] => [id, id]);
  const source = volume("source", "own", ...frozen);
  const shared = [...layers, layer("own", lowest), layer("copied", lowest)];
  const long = chainsOf(shared, source, volume("copy", "copied"));
  expect(copyOf(long, "copy")).toEqual({ kind: "flatten", layer: "copied", base: lowest });
  const fewer = volume("source", "own", ...frozen.slice(1));
  const shorter = chainsOf(shared.toSpliced(0, 2, layer(ids[1] ?? "")), fewer, volume("copy", "copied"));
  expect(copyOf(shorter, "copy")).toBeUndefined();
});

const backup = (id: string): Layer => ({
  ...layer(id),
  format: "backup",
  backup: { projectId: "project", backupId: `backup of ${id}` },
});
/** A volume that is being filled, with a snapshot that was taken meanwhile. */
const FILLING = [backup("remote"), layer("filled", "remote"), layer("own", "filled")];
const FILLING_VOLUME = volume("volume", "own", ["snapshot", "filled"]);

test("a restoration ends for snapshots too: what lies upon the backup is filled, also below a layer whose space cannot be given back", () => {
  const chains = chainsOf([...FILLING, layer("reverted", "filled")], FILLING_VOLUME);
  expect(garbageOf(chains).map(({ id }) => id)).toEqual(["reverted"]);
  const copy = copyOf(chains, "volume");
  expect(copy).toEqual({ kind: "flatten", layer: "filled", base: "remote" });
  if (copy === undefined) return;
  const filled = { ...copied(chains, "volume", copy), pending: [] };
  expect(chainOf(filled, "own").map(({ id }) => id)).toEqual(["own", "filled"]);
  expect(isReadFrom(filled, "backup of remote")).toBe(false);
  // What was still to be read from it was a layer that is garbage.
  expect(garbageOf(filled).map(({ id }) => id)).toEqual(["reverted", "remote"]);
});

test("a filling layer that somebody else reads is waited for, and nothing above it is cut off the backup", () => {
  const shared = chainsOf([...FILLING, layer("other", "filled")], FILLING_VOLUME, volume("copy", "other"));
  expect(copyOf(shared, "volume")).toBeUndefined();
  const alone = chainsOf(FILLING, FILLING_VOLUME);
  expect(copyOf(alone, "volume")).toEqual({ kind: "flatten", layer: "filled", base: "remote" });
});

test("a volume is not restored anew while a snapshot of it has not all of the backup before", () => {
  const wanted = { volumeId: "volume", restorationId: "r", projectId: "project", backupId: "b", sizeBytes: MIB };
  const restore = (chains: Chains): Chains => beginRestore(chains, wanted, ["later", "overlay"]);
  expect(() => restore(chainsOf(FILLING, FILLING_VOLUME))).toThrow(
    expect.objectContaining({ code: "snapshot-filling" }),
  );
  expect(restore(chainsOf(FILLING, volume("volume", "own"))).pending).toHaveLength(1);
  const filled = chainsOf([layer("filled"), layer("own", "filled")], FILLING_VOLUME);
  expect(restore(filled).pending).toHaveLength(1);
});
