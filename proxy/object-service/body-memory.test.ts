import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { BodyMemory, hasArrived } from "./body-memory.ts";

const KIB = 1024;

test("a body's memory is given back when its write and every message that carried it have let go", () => {
  const bytes = Buffer.alloc(256 * KIB);
  const memory = new BodyMemory(bytes);
  memory.hold();
  memory.hold();
  memory.letGo();
  memory.letGo();
  expect(bytes).toHaveLength(256 * KIB);
  memory.letGo();
  expect(bytes).toHaveLength(0);
});

test("a message that was never answered keeps the body's memory", () => {
  const bytes = Buffer.alloc(256 * KIB);
  const memory = new BodyMemory(bytes);
  memory.hold();
  memory.letGo();
  expect(bytes).toHaveLength(256 * KIB);
});

test("a peer's own error tells that the request arrived, an error of the connection does not", () => {
  expect(hasArrived(undefined)).toBe(true);
  expect(hasArrived(new RingsteadError("device-full", "full"))).toBe(true);
  expect(hasArrived(new RingsteadError("rpc-timeout", "no answer"))).toBe(false);
  expect(hasArrived(new RingsteadError("rpc-unreachable", "gone"))).toBe(false);
});
