import { expect, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { UNPACED } from "../repair/partition-repair.ts";
import { Votes } from "../votes.ts";
import { Replicator } from "./replicator.ts";

test("a device that has everything says how long it waits for the end of its promises", async () => {
  const clock = { ms: 1_700_000_000_000, nowMs: (): number => clock.ms };
  const engine = new MemoryDevice((done) => setImmediate(done));
  const replica = new DeviceReplica(engine, clock, [1n, 2n], await Votes.opened(engine, clock, false));
  const ring = { partitionCount: 1, partitionPower: 16, primaries: () => [] };
  const replicator = new Replicator({
    node: "n",
    device: "d1",
    replica,
    rings: { account: ring, container: ring, object: ring },
    circle: () => ({ required: [], others: [] }),
    peerOf: () => {
      throw new Error("it has no peers");
    },
    pace: UNPACED,
    clock,
    log: silentLog,
  });
  expect(replicator.rate().secondsLeft).toBe(30);
  clock.ms += 12_000;
  expect(replicator.rate().secondsLeft).toBe(18);
});
