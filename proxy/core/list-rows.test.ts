import { expect, test } from "vitest";
import { type Ballot, NO_INCARNATION } from "../../common/ballot.ts";
import type { ListQuery, Row } from "../../storage-node/wire.ts";
import { countRows, listRows } from "./list-rows.ts";
import type { Answer, Effect, Script } from "./script.ts";

const rowOf = (name: string, version: number, isDeleted = false): Row => ({
  name,
  version: String(version).padStart(48, "0") as Ballot,
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: isDeleted ? 0 : 10,
  payload: new Uint8Array(),
});

/** A replica of a row space, as far as a listing sees it. */
const page = (rows: readonly Row[], query: ListQuery, wantsRows: boolean) => {
  const live = rows.filter((row) => !row.isDeleted);
  const setHash = live.map((row) => row.name + row.version).join();
  const summary = { rows: live.length, objects: live.length, bytes: 10 * live.length, setHash };
  const shown = (query.withDeleted ? rows : live).filter((row) => row.name > query.marker);
  return { summary, rows: wantsRows ? shown.slice(0, query.limit) : [] };
};

const drive = <T>(
  script: Script<string, T>,
  replicas: readonly (readonly Row[])[],
): { result: T; repairs: Effect<string>[] } => {
  const repairs: Effect<string>[] = [];
  let step = script.next();
  while (step.done !== true) {
    const effect = step.value;
    let answer: Answer;
    if (effect.kind === "repair") repairs.push(effect);
    if (effect.kind === "list") {
      const pages = replicas.map((rows, replica) => ({
        replica,
        ...page(rows, effect.query, effect.fromAll || replica === 0),
      }));
      answer = { kind: "rows", pages };
    }
    step = script.next(answer);
  }
  return { result: step.value, repairs };
};

const QUERY = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 3 };

test("a page full of deleted rows does not end a listing of replicas that differ [B2]", () => {
  const deleted = Array.from({ length: 2500 }, (_, index) => rowOf(`a${String(index).padStart(5, "0")}`, 2, true));
  const replicas = [
    [...deleted, rowOf("b", 1)],
    [...deleted, rowOf("b", 1), rowOf("c", 1)],
  ];
  const { result } = drive(listRows("set", NO_INCARNATION, QUERY), replicas);
  expect(typeof result !== "string" && result.map(({ name }) => name)).toEqual(["b", "c"]);
});

test("a replica is given the rows that it lacks or has in an older version [B2]", () => {
  const replicas = [
    [rowOf("a", 1), rowOf("b", 1)],
    [rowOf("a", 2, true), rowOf("b", 1), rowOf("c", 3)],
  ];
  const { result, repairs } = drive(listRows("set", NO_INCARNATION, QUERY), replicas);
  expect(typeof result !== "string" && result.map(({ name }) => name)).toEqual(["b", "c"]);
  expect(repairs).toEqual([
    expect.objectContaining({ kind: "repair", replica: 0, row: rowOf("a", 2, true) }),
    expect.objectContaining({ kind: "repair", replica: 0, row: rowOf("c", 3) }),
  ]);
});

test("one listing writes back a bounded number of rows", () => {
  const many = Array.from({ length: 3000 }, (_, index) => rowOf(String(index).padStart(6, "0"), 1));
  const { repairs } = drive(listRows("set", NO_INCARNATION, { ...QUERY, limit: 10_000 }), [[], many]);
  expect(repairs).toHaveLength(1000);
});

test("figures are exact while replicas differ", () => {
  const replicas = [
    [rowOf("a", 1), rowOf("b", 1)],
    [rowOf("a", 2, true), rowOf("b", 1), rowOf("c", 3)],
  ];
  const { result } = drive(countRows("set", NO_INCARNATION), replicas);
  expect(result).toMatchObject({ rows: 2, objects: 2, bytes: 20 });
});
