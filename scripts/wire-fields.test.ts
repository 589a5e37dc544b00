import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ballotOf, type Incarnation, NO_INCARNATION } from "../common/ballot.ts";
import { systemClock } from "../common/clock.ts";
import { hybridClock } from "../common/hybrid-clock.ts";
import { silentLog } from "../common/log.ts";
import { RpcClient } from "../common/rpc/client.ts";
import { type RpcHandler, type RpcReply, RpcServer } from "../common/rpc/server.ts";
import { type Answer, DeviceClient, DevicesClient } from "../storage-node/client.ts";
import { DeviceReplica } from "../storage-node/device-replica.ts";
import { dispatcher, type ServedDevice } from "../storage-node/dispatch.ts";
import { MemoryDevice } from "../storage-node/engine/memory-device.ts";
import { encodeContainerRecord, type Name } from "../storage-node/wire.ts";

const KEY = Buffer.alloc(32, 3);
const LIFE = "1".repeat(24) as Incarnation;
const TIMEOUT_MS = 5_000;
const CONTAINER: Name = { space: "container", hash32: 3, path: "/a/c" };

/** What a later version might add. */
const LATER = ["a later field", { with: ["parts"] }, 7];

/** The epoch, which a message of a partition that never moved leaves out; who sends a field behind it sends it. */
const NO_EPOCH = 0;

const longer = (inner: RpcReply): RpcReply => ({
  expect: (parts) => inner.expect(parts),
  ok: (header, body, part) => inner.ok([...header, ...LATER], body, part),
  give: (header, body, part) => inner.give([...header, ...LATER], body, part),
  error: (error, part) => inner.error(error, part),
});

/** What a fresh device answers to one message of each common kind, without what differs between any two devices. */
const conversation = async (change: (inner: RpcHandler) => RpcHandler): Promise<unknown[]> => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-fields-"));
  const replica = new DeviceReplica(new MemoryDevice((done) => setTimeout(done, 1)), systemClock, [1n, 2n]);
  // Nothing of it is staged here.
  const served = { replica } as ServedDevice;
  await using server = new RpcServer(KEY, change(dispatcher(new Map([["d1", served]]))), silentLog);
  await server.listen(join(folder, "node"));
  using rpc = new RpcClient(join(folder, "node"), KEY);
  const devices = new DevicesClient(rpc, ["d1"]);
  const device = new DeviceClient(rpc, "d1");
  const told = <T>(send: (answer: Answer<T>) => void): Promise<unknown> =>
    new Promise((resolve) => send((error, value) => resolve(error?.code ?? value)));
  const clock = hybridClock({ nowMs: () => 1_700_000_000_000 });
  const [first, second] = [clock.next(), clock.next()].map((time) => ballotOf(NO_INCARNATION, time, "00000001"));
  if (first === undefined || second === undefined) throw new Error("two ballots were made");
  const metadata = encodeContainerRecord({ status: "open", incarnation: LIFE, headers: {} });
  const record = { bodyVersion: first, isTombstone: false, bodyLength: 0, metadata, body: "none" } as const;
  const row = { name: "o", version: first, isDeleted: false, objects: 1, bytes: 5, payload: new Uint8Array([1]) };
  const query = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 10, withDeleted: false };
  const answers = [
    await told((answer) => devices.accept(CONTAINER, first, first, record, {}, [first], TIMEOUT_MS, answer)),
    await told((answer) => devices.row(CONTAINER, LIFE, row, TIMEOUT_MS, answer)),
    await told((answer) => devices.read(CONTAINER, 100, TIMEOUT_MS, answer)),
    await told((answer) => devices.prepare(CONTAINER, second, [first], 0, TIMEOUT_MS, answer)),
    await told((answer) => device.list(CONTAINER, LIFE, query, TIMEOUT_MS, answer)),
    await device.unsettled(0, undefined, TIMEOUT_MS),
  ];
  rmSync(folder, { recursive: true, force: true });
  return answers;
};

test("fields that a later version adds to messages and answers change nothing for the readers of this one", async () => {
  const today = await conversation((inner) => inner);
  expect(today.filter((answer) => typeof answer === "string")).toEqual([]);
  const later = await conversation(
    (inner) => (header, body, reply) => inner([...header, NO_EPOCH, ...LATER], body, longer(reply)),
  );
  expect(later).toEqual(today);
});
