import { expect, test } from "vitest";
import { type Ballot, ballotOf, type Incarnation } from "../../common/ballot.ts";
import { timestampAt } from "../../common/hybrid-clock.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { RowSpace } from "../row-space.ts";
import { encodeCounters, noCounters } from "../store/counters-format.ts";
import { countersKey, rowKey } from "../store/keys.ts";
import { encodeRowValue, type Name, type Row } from "../wire.ts";
import { recountRows } from "./recount-rows.ts";

const LIFE = "1".repeat(24) as Incarnation;
const OWNER: Name = { space: "container", hash32: 9, path: `/a/c\0${LIFE}` };
const ACCOUNT: Name = { space: "account", hash32: 9, path: "/a" };
const SEEDS = [1n, 2n] as const;

const version = (time: number): Ballot => ballotOf(LIFE, timestampAt(time), "00000001");
const row = (name: string, time: number, isDeleted = false): Row => ({
  name,
  version: version(time),
  isDeleted,
  objects: isDeleted ? 0 : 1,
  bytes: isDeleted ? 0 : 10 * time,
  payload: new Uint8Array(),
});
const newDevice = (): MemoryDevice => new MemoryDevice((done) => setImmediate(done));
const put = (device: MemoryDevice, owner: Name, one: Row): Promise<void> =>
  device.apply([
    {
      kind: "put",
      key: rowKey(owner, one.name, one.isDeleted),
      value: encodeRowValue(one),
      body: { kind: "none" },
    },
  ]);

test("where a log lost a part, no row stays beside the one that replaced it, and listings are counted anew", async () => {
  const whole = newDevice();
  const rows = new RowSpace(whole, SEEDS);
  for (const one of [row("a", 1), row("b", 2, true), row("c", 4), row("d", 5)]) await rows.put(OWNER, one);
  await rows.put(ACCOUNT, row("c", 7));

  const holed = newDevice();
  for (const one of [row("a", 1), row("b", 2, true), row("c", 4), row("d", 5)]) await put(holed, OWNER, one);
  await put(holed, ACCOUNT, row("c", 7));
  // The records that removed these are lost, and so are the last ones of the counters.
  await put(holed, OWNER, row("b", 1));
  await put(holed, OWNER, row("c", 3, true));
  const gone: Name = { ...OWNER, path: `/a/gone\0${LIFE}` };
  const stale = encodeCounters({ ...noCounters(), rows: 17, deletedRows: 0 });
  for (const owner of [OWNER, gone])
    await holed.apply([{ kind: "put", key: countersKey(owner), value: stale, body: { kind: "none" } }]);

  expect(await recountRows(holed, SEEDS)).toBe(2);
  const found = new RowSpace(holed, SEEDS);
  for (const owner of [OWNER, ACCOUNT]) expect(found.summary(owner)).toEqual(new RowSpace(whole, SEEDS).summary(owner));
  expect(found.summary(gone)).toEqual(new RowSpace(whole, SEEDS).summary(gone));
  const all = { gte: Buffer.of(0), lt: Buffer.alloc(5, 0xff), limit: 100 };
  const isRow = ({ key }: { key: Uint8Array }): boolean => key[4] !== countersKey(OWNER)[4];
  expect((await holed.scan(all)).filter(isRow)).toEqual((await whole.scan(all)).filter(isRow));
  // A tombstone that the counters knew nothing of is looked for again.
  await found.putAll(OWNER, [row("b", 1)]);
  expect((await holed.scan(all)).filter(isRow)).toEqual((await whole.scan(all)).filter(isRow));
});
