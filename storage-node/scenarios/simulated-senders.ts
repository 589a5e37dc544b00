import { RingsteadError } from "../../common/errors.ts";
import {
  type FirstMembers,
  indexOf,
  type SimulatedReplica,
  type World,
} from "../../proxy/core/containers-simulation/world.ts";
import { HandOffSender, type HandOffTarget } from "../daemons/hand-off-sender.ts";
import type { SpaceRings } from "../daemons/own-partitions.ts";
import type { DeviceReplica } from "../device-replica.ts";
import { UNPACED } from "../repair/partition-repair.ts";
import type { Name } from "../wire.ts";
import { deviceOf } from "./available-proxy.ts";

/** The daemon of production on every device of a simulated world; it begins anew where a device lost its power. */
export class SimulatedSenders {
  readonly #world: World;
  readonly #members: FirstMembers;
  readonly #senders = new Map<DeviceReplica, HandOffSender>();

  constructor(world: World, members: FirstMembers) {
    this.#world = world;
    this.#members = members;
  }

  /** One round on one device, if it is up. */
  async round(replica: SimulatedReplica): Promise<void> {
    if (!replica.isUp) return;
    const device = deviceOf(replica.replica);
    let sender = this.#senders.get(device);
    if (sender === undefined) {
      sender = new HandOffSender({
        device: String(replica.index),
        replica: device,
        rings: this.#rings(),
        targetOf: (id) => this.#targetOf(replica.index, id),
        pace: UNPACED,
      });
      this.#senders.set(device, sender);
    }
    await sender.round(new AbortController().signal);
  }

  #rings(): SpaceRings {
    const ringOf = (ids: readonly string[]): SpaceRings["object"] => ({
      partitionCount: 1,
      partitionPower: 16,
      primaries: () =>
        ids.map((id) => ({
          id: indexOf(id),
          region: 1,
          zone: 1,
          node: "node",
          device: String(indexOf(id)),
          weight: 1,
        })),
    });
    const { account, container, object } = this.#members;
    return { account: ringOf(account), container: ringOf(container), object: ringOf(object) };
  }

  #targetOf(from: number, id: string): HandOffTarget {
    const ask = <T>(name: Name, work: (it: DeviceReplica) => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        this.#world.queue.after(this.#world.timeoutMs, () =>
          reject(new RingsteadError("rpc-timeout", "no answer came")),
        );
        const met = async (it: DeviceReplica): Promise<{ value: T } | RingsteadError> => {
          try {
            return { value: await work(it) };
          } catch (error) {
            if (error instanceof RingsteadError) return error;
            throw error;
          }
        };
        this.#world.replicas[indexOf(id)]?.call(
          `hand-off ${from}`,
          "repair",
          name,
          (it) => met(deviceOf(it)),
          (answer) => (answer instanceof RingsteadError ? reject(answer) : resolve(answer.value)),
        );
      });
    return {
      take: (name, register, body, _timeoutMs, epoch) => {
        const given =
          body === undefined
            ? undefined
            : body === "none" || !("bytes" in body)
              ? ({ kind: "none" } as const)
              : ({ kind: "bytes", bytes: body.bytes } as const);
        return ask(name, async (it) => (await it.take(name, register, given, epoch)).answer);
      },
      row: (owner, incarnation, row, _timeoutMs, epoch) =>
        ask(owner, async (it) => (await it.row(owner, incarnation, row, epoch, false, true)).kind),
      stage: () => Promise.reject(new RingsteadError("rpc-timeout", "no body of a simulation is large")),
    };
  }
}
