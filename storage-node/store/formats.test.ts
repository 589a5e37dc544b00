import fc from "fast-check";
import { expect, test } from "vitest";
import { type Ballot, ballotOver, type Incarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { decodeCounters, encodeCounters } from "./counters-format.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import { decodeEpochState, encodeEpochState } from "./epoch-format.ts";
import { epochKey, placeOfPartitionKey, registerKey, rowKey } from "./keys.ts";
import { decodeContainerRecord, encodeContainerRecord } from "../wire.ts";
import { decodeRegister, encodeRegister } from "./register-format.ts";

const version = "0123456789abcdef0123456789abcdef0123456789abcdef" as Ballot;
const register = {
  version,
  ballot: version,
  state: "confirmed",
  bodyVersion: version,
  isTombstone: false,
  bodyLength: 4096,
  metadata: Buffer.from("meta"),
} as const;

test("a register, a row key and counters have the bytes of FORMAT.md", () => {
  expect(encodeRegister(register).toString("hex")).toBe(`010100${version}0000000010006d657461`);
  const name = { space: "container", hash32: 0xdeadbeef, path: "/a/c" } as const;
  expect(registerKey(name).toString("hex")).toBe("deadbeef632f612f63");
  expect(rowKey(name, "o", true).toString("hex")).toBe("deadbeef742f612f63006f");
  const counters = { rows: 1, objects: 2, bytes: 3, setHash: 0xffn, deletedRows: 4 };
  const format1 = "3ff00000000000004000000000000000400800000000000000000000000000ff";
  expect(encodeCounters(counters).toString("hex")).toBe(`02${format1}4010000000000000`);
  expect(decodeCounters(encodeCounters(counters))).toEqual(counters);
  expect(decodeCounters(Buffer.from(`01${format1}`, "hex"))).toEqual({
    ...counters,
    deletedRows: Number.POSITIVE_INFINITY,
  });
});

test("a container's record has the bytes of FORMAT.md, with shards and without", () => {
  const incarnation = "018bcfe5680500000000abcd" as Incarnation;
  const life = Buffer.from(incarnation).toString("hex");
  const plain = { status: "closing", incarnation, headers: {} } as const;
  expect(Buffer.from(encodeContainerRecord(plain)).toString("hex")).toBe(`9301b8${life}de0000`);
  const shards = {
    rows: "gone",
    index: [
      { upTo: "m", id: "x0" },
      { upTo: "", id: "x1" },
    ],
    change: { from: ["x1"], to: [{ upTo: "", id: "y0" }] },
  } as const;
  const hex = `9602b8${life}de0000039292a16da2783092a0a278319291a278319192a0a27930`;
  expect(Buffer.from(encodeContainerRecord({ ...plain, status: "open", shards })).toString("hex")).toBe(hex);
  expect(decodeContainerRecord(Buffer.from(hex, "hex"))).toMatchObject({ status: "open", incarnation, shards });
  const leaf = { rows: "here", index: undefined, change: undefined } as const;
  expect(decodeContainerRecord(encodeContainerRecord({ ...plain, shards: leaf })).shards).toEqual(leaf);
});

test("a device's state in a partition that was moved has the bytes of FORMAT.md", () => {
  const key = epochKey("container", 16, 0xabc);
  expect(key.toString("hex")).toBe("000000002165011000000abc");
  expect(placeOfPartitionKey(key)).toEqual({ space: "container", partitionPower: 16, partition: 0xabc });
  const floor = "018bcfe568110000" as HybridTimestamp;
  const state = {
    isSealed: true,
    caughtUp: -1,
    fateFloor: floor,
    configuration: { epoch: 1, old: [{ id: "n/a", since: 0 }], next: [{ id: "n/b", since: 1 }], floor },
  };
  expect(Buffer.from(encodeEpochState(state)).toString("hex")).toBe(
    "980101ffb03031386263666535363831313030303001b0303138626366653536383131303030309192a36e2f61009192a36e2f6201",
  );
  expect(decodeEpochState(encodeEpochState(state))).toEqual(state);
  const stable = { ...state, configuration: { ...state.configuration, next: undefined } };
  expect(decodeEpochState(encodeEpochState(stable))).toEqual(stable);
});

test("every register reads back as it was written", () => {
  const other = "f".repeat(48) as Ballot;
  for (const value of [
    register,
    { ...register, ballot: other },
    { ...register, bodyVersion: other, state: "void" as const },
    { ...register, ballot: other, bodyVersion: other, isTombstone: true, bodyLength: 2 ** 40 },
    { ...register, ballot: ballotOver(other, version) },
    { ...register, ballot: ballotOver(other, version), bodyVersion: other, state: "void" as const },
  ]) {
    const decoded = decodeRegister(encodeRegister(value));
    expect({ ...decoded, metadata: Buffer.from(decoded.metadata).toString() }).toEqual({ ...value, metadata: "meta" });
  }
});

test("a register that is stored over another's ballot has that one and a bit", () => {
  const other = "f".repeat(48) as Ballot;
  const bytes = Buffer.from(encodeRegister({ ...register, ballot: ballotOver(other, version) }));
  expect([bytes[2], bytes.toString("hex", 33, 57)]).toEqual([2 | 8, other]);
  expect(() => encodeRegister({ ...register, ballot: ballotOver(version, other) })).toThrow("another one's ballot");
});

test("arbitrary bytes decode to something or to a typed error, never to a crash", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
      try {
        decodeRegister(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(RingsteadError);
      }
      decodeCounters(bytes);
      try {
        decodeEpochState(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(RingsteadError);
      }
    }),
  );
});
