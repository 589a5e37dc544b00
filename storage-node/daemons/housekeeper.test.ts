import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { type HybridTimestamp, timestampAt } from "../../common/hybrid-clock.ts";
import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { Staging } from "../staging.ts";
import { registerKey } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import type { Name } from "../wire.ts";
import { housekeeper } from "./housekeeper.ts";

const NOW_MS = 0x10_000;
/** More than one portion. */
const NAMES = Array.from(
  { length: 150 },
  (_, index): Name => ({ space: "object", hash32: index, path: `/a/c/o${index}` }),
);

test("a node that stops while clients write leaves no confirmation unwritten", async () => {
  const engine = new MemoryDevice((done) => setImmediate(done));
  const replica = new DeviceReplica(engine, { nowMs: () => NOW_MS }, [1n, 2n]);
  const version: Ballot = ballotOf(NO_INCARNATION, timestampAt(1) satisfies HybridTimestamp, "00000001");
  const record = {
    bodyVersion: version,
    isTombstone: false,
    bodyLength: 0,
    metadata: new Uint8Array(),
    body: "none",
  } as const;
  for (const name of NAMES) {
    await replica.accept(name, version, version, record, { kind: "none" }, []);
    replica.confirm(name, version, false);
  }
  const stateOf = (name: Name): string =>
    decodeRegister(engine.get(registerKey(name))?.value ?? new Uint8Array()).state;
  await using staging = new Staging(engine);
  const worker = housekeeper(new Map([["d1", { replica, staging }]]));
  const stop = new AbortController();
  const waited = worker.waitForWork(stop.signal);
  stop.abort();
  await waited;
  expect(new Set(NAMES.map(stateOf))).toEqual(new Set(["confirmed"]));
});
