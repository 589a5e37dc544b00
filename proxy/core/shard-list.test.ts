import { expect, test } from "vitest";
import { type Ballot, type Incarnation, incarnationMadeBy } from "../../common/ballot.ts";
import { seededRandom } from "../../common/random.ts";
import type { ContainerRecord, ListQuery, Row, ShardRange } from "../../storage-node/wire.ts";
import type { ContainerPlace } from "./container-place.ts";
import type { PageQuery } from "./list-rows.ts";
import type { Answer, Script } from "./script.ts";
import { countContainer, listContainer } from "./shard-list.ts";
import { ShardMemory } from "./shard-memory.ts";
import { compareNames } from "./shard-ranges.ts";

const LIFE = incarnationMadeBy("1".repeat(48) as Ballot);
const place: ContainerPlace<string> = {
  container: "",
  account: "account",
  name: "c",
  shardOf: (_: Incarnation, id: string) => id,
  memory: new ShardMemory(),
};

const rowOf = (name: string): Row => ({
  name,
  version: "2".repeat(48) as Ballot,
  isDeleted: false,
  objects: 1,
  bytes: 3,
  payload: new Uint8Array(),
});

/** What a storage node gives of one shard. */
const pageOf = (names: readonly string[], query: ListQuery): Row[] => {
  const { endMarker, isReverse, limit, marker, prefix } = query;
  const [lower, upper] = isReverse ? [endMarker, marker] : [marker, endMarker];
  const within = names.filter(
    (name) =>
      name.startsWith(prefix) &&
      (lower === "" || compareNames(name, lower) > 0) &&
      (upper === "" || compareNames(name, upper) < 0),
  );
  return (isReverse ? within.toReversed() : within).slice(0, limit).map(rowOf);
};

/** Drives a script over shards, each one replica; how many listings were asked for. */
const drive = <T>(script: Script<string, T>, shards: ReadonlyMap<string, readonly string[]>): [T, number] => {
  let asked = 0;
  let step = script.next();
  while (step.done !== true) {
    const effect = step.value;
    let answer: Answer;
    if (effect.kind === "list") {
      asked += 1;
      const names = shards.get(effect.set) ?? [];
      const summary = { rows: names.length, objects: names.length, bytes: 3 * names.length, setHash: effect.set };
      answer = { kind: "rows", pages: [{ replica: 0, summary, rows: pageOf(names, effect.query) }] };
    }
    step = script.next(answer);
  }
  return [step.value, asked];
};

const namesOf = (random: ReturnType<typeof seededRandom>): string[] => {
  const letters = ["a", "b", "/", "\uffee", "\u{1f600}", "é"];
  const letter = (): string => letters[random.below(letters.length)] ?? "";
  const names = new Set(Array.from({ length: 40 }, () => Array.from({ length: 1 + random.below(4) }, letter).join("")));
  return [...names].toSorted(compareNames);
};

test("names are compared as the bytes of their UTF-8", () => {
  const random = seededRandom(3n);
  const names = namesOf(random);
  expect(names).toEqual(names.toSorted((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right))));
  expect(compareNames("\u{1f600}", "\uffee")).toBeGreaterThan(0);
  expect(compareNames("a", "a/")).toBeLessThan(0);
});

test("a listing over shards is that of one, whatever is asked for, and asks no more shards than it must", () => {
  for (let seed = 1n; seed <= 400n; seed++) {
    const random = seededRandom(seed);
    const names = namesOf(random);
    const cuts = [...new Set(Array.from({ length: random.below(6) }, () => names[random.below(names.length)] ?? ""))];
    const index: ShardRange[] = [...cuts.toSorted(compareNames), ""].map((upTo, at) => ({ upTo, id: `s${at}` }));
    const shards = new Map<string, string[]>(index.map(({ id }) => [id, []]));
    for (const name of names) {
      const range = index.find(({ upTo }) => upTo === "" || compareNames(name, upTo) <= 0);
      shards.get(range?.id ?? "")?.push(name);
    }
    const record: ContainerRecord = {
      status: "open",
      incarnation: LIFE,
      headers: {},
      shards: { rows: "dropped", index, change: undefined },
    };
    const some = (): string => (random.below(2) === 0 ? "" : (names[random.below(names.length)] ?? ""));
    const query: PageQuery = {
      marker: some(),
      endMarker: some(),
      prefix: String.fromCodePoint(some().codePointAt(0) ?? 0x61),
      isReverse: random.below(2) === 0,
      limit: 1 + random.below(12),
    };
    const wanted = pageOf(names, { ...query, withDeleted: false }).map(({ name }) => name);
    const [listed, asked] = drive(listContainer(place, record, query), shards);
    const title = `${seed} ${JSON.stringify({ query, index })}`;
    expect(typeof listed === "string" ? listed : listed.map(({ name }) => name), title).toEqual(wanted);
    expect(asked, title).toBeLessThanOrEqual(index.length);
    const [counted] = drive(countContainer(place, record), shards);
    expect(counted, title).toMatchObject({ rows: names.length, bytes: 3 * names.length });
  }
});
