import { DeviceReplica } from "../device-replica.ts";
import { MemoryDevice } from "../engine/memory-device.ts";
import { NEWCOMER_KEY, registerKey } from "../store/keys.ts";
import { decodeRegister } from "../store/register-format.ts";
import { encodeNewcomer, type Life, Votes } from "../votes.ts";
import { DIGESTS, epochsOf, marksOf, repairOf } from "./repairing-replica.ts";
import type { MakeReplica, PoweredReplica } from "../../proxy/core/containers-simulation/world.ts";

/** Longer than any proxy's clock is ahead of a replica's here. */
const FORGOTTEN_PROMISE_MS = 60;
const YOUNG_MS = 20;

/** An empty device that was opened once: before it serves, its first record is durable. */
const newcomerAt = (nowMs: number): ConstructorParameters<typeof MemoryDevice>[1] => {
  const value = encodeNewcomer({ sinceMs: nowMs, life: nowMs.toString().padStart(16, "0").slice(0, 16) as Life });
  return new Map([[Buffer.from(NEWCOMER_KEY).toString("latin1"), { value, body: { kind: "none" }, bytes: undefined }]]);
};

export const mortalReplica: MakeReplica = (syncAfter, clock, index, first, mutation) => {
  const on = (device: MemoryDevice): PoweredReplica => {
    let isEmptied = false;
    const votes = Votes.recorded(device, clock, FORGOTTEN_PROMISE_MS);
    const replica = new DeviceReplica(
      device,
      clock,
      [1n, 2n],
      votes,
      epochsOf(device, index, first, mutation),
      marksOf(device, mutation),
    );
    return {
      replica,
      held: (name) => {
        const entry = device.get(registerKey(name));
        if (entry === undefined) return undefined;
        return {
          register: decodeRegister(entry.value),
          storedBytes: entry.body.kind === "log" ? entry.body.length : 0,
        };
      },
      afterCrash: () => {
        return on(isEmptied ? new MemoryDevice(syncAfter, newcomerAt(clock.nowMs()), DIGESTS) : device.afterCrash());
      },
      repair: repairOf(replica, clock, first, mutation, YOUNG_MS, () => (isEmptied = true)),
    };
  };
  return on(new MemoryDevice(syncAfter, undefined, DIGESTS));
};
