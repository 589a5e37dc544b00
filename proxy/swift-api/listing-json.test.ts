import fc from "fast-check";
import { expect, test } from "vitest";
import type { Ballot } from "../../common/ballot.ts";
import { encodeRowValue, packRows, type Row, unpackRows } from "../../storage-node/wire.ts";
import { encodeObjectRow } from "../object-service/object-metadata.ts";
import { type ListingItem, renderObjectsJson } from "./listing.ts";

const NOW_MS = Date.UTC(2026, 0, 2, 3, 4, 5, 6);

const versionAt = (ms: number): Ballot =>
  `${"0".repeat(24)}${ms.toString(16).padStart(12, "0")}0000${"0".repeat(8)}` as Ballot;

const rowOf = (name: string, bytes: number, contentType: string, ms: number): Row => ({
  name,
  version: versionAt(ms),
  isDeleted: false,
  objects: 1,
  bytes,
  payload: encodeObjectRow({ etag: "d41d8cd98f00b204e9800998ecf8427e", contentType }),
});

/** What the listing has to say of a row, by the plainest way. */
const lineOf = (row: Row, ms: number, contentType: string): object => ({
  bytes: row.bytes,
  content_type: contentType,
  hash: "d41d8cd98f00b204e9800998ecf8427e",
  last_modified: `${new Date(ms).toISOString().slice(0, -1)}000`,
  name: row.name,
});

const packed = (rows: readonly Row[]): Buffer =>
  packRows(rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: false })));

test("rows in runs, cut runs, rolled-up names and single rows render as what they are, also a second time", () => {
  const line = fc.record({
    name: fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }),
    bytes: fc.nat(),
    contentType: fc.constantFrom("text/plain", 'a"b', "ä/ö"),
    ms: fc.integer({ min: 0, max: NOW_MS }),
  });
  fc.assert(
    fc.property(
      fc.array(fc.array(line, { maxLength: 40 }), { maxLength: 5 }),
      fc.nat(120),
      fc.option(fc.nat(60), { nil: undefined }),
      (runs, limit, subdirAt) => {
        const bodies = runs.map((run) => packed(run.map((l) => rowOf(l.name, l.bytes, l.contentType, l.ms))));
        const rows = unpackRows(
          Buffer.concat(bodies),
          bodies.map((body) => body.length),
        );
        const lines = runs.flat();
        const items: ListingItem[] = rows.slice(0, limit).map((row) => ({ row }));
        const expected: object[] = lines
          .slice(0, limit)
          .map((l) => lineOf(rowOf(l.name, l.bytes, l.contentType, l.ms), l.ms, l.contentType));
        if (subdirAt !== undefined && subdirAt < items.length) {
          items[subdirAt] = { subdir: "folder/" };
          expected[subdirAt] = { subdir: "folder/" };
        }
        for (let time = 0; time < 2; time++) expect(JSON.parse(renderObjectsJson(items).toString())).toEqual(expected);
      },
    ),
  );
});

test("rows of two replicas that were merged are not taken for a run of one of them", () => {
  const names = Array.from({ length: 40 }, (_, index) => `n${String(index).padStart(2, "0")}`);
  const older = unpackRows(packed(names.map((name) => rowOf(name, 1, "text/plain", NOW_MS))));
  const newer = unpackRows(packed(names.map((name) => rowOf(name, 2, "text/plain", NOW_MS))));
  const items = older.map((row, index): ListingItem => ({ row: index % 2 === 0 ? row : (newer[index] ?? row) }));
  const listed: { bytes: number }[] = JSON.parse(renderObjectsJson(items).toString());
  expect(listed.map(({ bytes }) => bytes)).toEqual(names.map((_, index) => (index % 2 === 0 ? 1 : 2)));
});
