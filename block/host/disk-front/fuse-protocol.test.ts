import { expect, test } from "vitest";
import {
  answerHeader,
  attributesAnswer,
  decodeRequest,
  initAnswer,
  isProtocolOf,
  openAnswer,
  writeAnswer,
} from "./fuse-protocol.ts";

/** A request as Linux 6.1 lays it out: `operation` as user 0 of file 1. */
const request = (operation: number, parameters: Buffer): Buffer => {
  const header = Buffer.alloc(40);
  header.writeUInt32LE(40 + parameters.length, 0);
  header.writeUInt32LE(operation, 4);
  header.writeBigUInt64LE(7n, 8);
  header.writeBigUInt64LE(1n, 16);
  return Buffer.concat([header, parameters]);
};

const numbers = (...values: readonly (readonly [value: number, bytes: 4 | 8])[]): Buffer =>
  Buffer.concat(
    values.map(([value, bytes]) => {
      const buffer = Buffer.alloc(bytes);
      buffer.writeUIntLE(value, 0, Math.min(bytes, 6));
      return buffer;
    }),
  );

test("what reads, writes, flushes and zeroes is taken as what it is", () => {
  const read = numbers([0, 8], [4096, 8], [512, 4], [0, 4], [0, 8], [0, 4], [0, 4]);
  expect(decodeRequest(request(15, read))).toEqual({ id: 7n, kind: "read", offset: 4096, length: 512 });
  const write = Buffer.concat([
    numbers([0, 8], [2 ** 40, 8], [3, 4], [0, 4], [0, 8], [0, 4], [0, 4]),
    Buffer.from("abc"),
  ]);
  expect(decodeRequest(request(16, write))).toEqual({
    id: 7n,
    kind: "write",
    offset: 2 ** 40,
    bytes: Buffer.from("abc"),
  });
  expect(decodeRequest(request(20, numbers([0, 8], [1, 4], [0, 4])))).toEqual({ id: 7n, kind: "flush" });
  for (const mode of [3, 16, 17]) {
    const hole = numbers([0, 8], [8192, 8], [100, 8], [mode, 4], [0, 4]);
    expect(decodeRequest(request(43, hole))).toEqual({ id: 7n, kind: "zero", offset: 8192, length: 100 });
  }
});

test("what the file is not for is refused with the kernel's numbers, and so is what is too short", () => {
  const allocate = numbers([0, 8], [0, 8], [100, 8], [0, 4], [0, 4]);
  expect(decodeRequest(request(43, allocate))).toEqual({ id: 7n, kind: "refuse", errorNumber: 95 });
  expect(decodeRequest(request(1, Buffer.from("name\0")))).toEqual({ id: 7n, kind: "refuse", errorNumber: 2 });
  expect(decodeRequest(request(4, numbers([8, 4])))).toEqual({ id: 7n, kind: "refuse", errorNumber: 22 });
  expect(decodeRequest(request(39, Buffer.alloc(24)))).toEqual({ id: 7n, kind: "refuse", errorNumber: 38 });
  expect(decodeRequest(request(15, Buffer.alloc(8)))).toEqual({ id: 7n, kind: "refuse", errorNumber: 22 });
  const short = Buffer.concat([numbers([0, 8], [0, 8], [4, 4], [0, 4], [0, 8], [0, 4], [0, 4]), Buffer.from("abc")]);
  expect(decodeRequest(request(16, short))).toEqual({ id: 7n, kind: "refuse", errorNumber: 22 });
  expect(decodeRequest(request(36, Buffer.alloc(8)))).toEqual({ id: 7n, kind: "silence" });
});

test("answers have the bytes that the kernel reads", () => {
  expect(answerHeader(7n, 4).toString("hex")).toBe("14000000000000000700000000000000");
  expect(answerHeader(7n, 0, 5).toString("hex")).toBe("10000000fbffffff0700000000000000");
  expect(writeAnswer(4096).toString("hex")).toBe("0010000000000000");
  expect(openAnswer().toString("hex")).toBe("00000000000000004100000000000000");
  // Of all that a kernel offers, what the front is for.
  expect(initAnswer(0xffff_ffff).toString("hex")).toBe(
    "070000001f0000000000000021804000" + "4000400000000400" + "0100000040000000" + "00".repeat(32),
  );
  expect(attributesAnswer(1024).toString("hex")).toBe(
    "00".repeat(16) +
      "01" +
      "00".repeat(7) +
      "0004" +
      "00".repeat(6) +
      "02" +
      "00".repeat(7) +
      "00".repeat(36) +
      "80810000" +
      "01000000" +
      "00".repeat(12) +
      "00100000" +
      "00000000",
  );
  expect([isProtocolOf(7, 31), isProtocolOf(7, 45), isProtocolOf(7, 8), isProtocolOf(8, 0)]).toEqual([
    true,
    true,
    false,
    false,
  ]);
});
