import { expect, test } from "vitest";
import type { RpcReply } from "../../common/rpc/server.ts";
import { METHOD_FETCH, METHOD_READ } from "../wire.ts";
import { Foreground } from "./foreground.ts";

const replyOf = (told: unknown[]): RpcReply => ({
  expect: (parts) => void told.push(["expect", parts]),
  ok: (header, _body, part) => void told.push(["ok", header, part]),
  give: (header, _body, part) => void told.push(["give", header, part]),
  error: (_error, part) => void told.push(["error", part]),
});

test("one message of four is timed from when it came until its last part is answered", async () => {
  const foreground = new Foreground();
  const told: unknown[] = [];
  const replies = Array.from({ length: 8 }, () => foreground.watched([METHOD_READ], replyOf(told)));
  for (const reply of replies) reply.expect(2);
  for (const reply of replies) reply.ok([1], undefined, 0);
  expect(foreground.takeWindow()).toEqual({ requests: 8, p99Ms: 0 });
  await new Promise((resolve) => void setTimeout(resolve, 30));
  for (const reply of replies) reply.give([2], Buffer.alloc(1), 1);
  const { requests, p99Ms } = foreground.takeWindow();
  expect(requests).toBe(0);
  expect(p99Ms).toBeGreaterThan(20);
  expect(told.filter((one) => JSON.stringify(one) === '["give",[2],1]')).toHaveLength(8);
  expect(foreground.takeWindow()).toEqual({ requests: 0, p99Ms: 0 });
});

test("what replicas ask each other for repair is no request of a client", () => {
  const foreground = new Foreground();
  const reply = replyOf([]);
  let requests = 0;
  foreground.onRequest = () => void (requests += 1);
  expect(foreground.watched([METHOD_FETCH], reply)).toBe(reply);
  foreground.watched([METHOD_READ], reply);
  expect(foreground.takeWindow().requests).toBe(1);
  expect(requests).toBe(1);
});
