import fc from "fast-check";
import { expect, test } from "vitest";
import type { Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { decodeCounters, encodeCounters } from "./counters-format.ts";
import { registerKey, rowKey } from "./keys.ts";
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

test("every register reads back as it was written", () => {
  const other = "f".repeat(48) as Ballot;
  for (const value of [
    register,
    { ...register, ballot: other },
    { ...register, bodyVersion: other, state: "void" as const },
    { ...register, ballot: other, bodyVersion: other, isTombstone: true, bodyLength: 2 ** 40 },
  ]) {
    const decoded = decodeRegister(encodeRegister(value));
    expect({ ...decoded, metadata: Buffer.from(decoded.metadata).toString() }).toEqual({ ...value, metadata: "meta" });
  }
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
    }),
  );
});
