import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import { OTHER_BASE_REMEDY } from "../../ring/base-ring.ts";
import type { DeviceReplica } from "../device-replica.ts";
import type { RepairSource } from "../repair/repair-peer.ts";
import { membersOf } from "../core/partition-epoch.ts";
import type { Space } from "../wire.ts";

/** Whom a device asks what partitions were ever moved, as `node/device`. */
export type HearingCircle = {
  /** Devices of the rings that say where data is to be: all of them have to answer. */
  readonly required: readonly string[];
  /** Devices of the rings of the beginning: those that an operator has taken out since are asked, and need not answer. */
  readonly others: readonly string[];
  /** Why some ring does not say whom it names, where one cannot be read: it may be one that has devices which no other names. */
  readonly unread?: string;
};

export type HearingParts = {
  readonly replica: DeviceReplica;
  /** As the ring files say it now. */
  readonly circle: () => HearingCircle;
  readonly powers: Readonly<Record<Space, number>>;
  readonly peerOf: (id: string) => RepairSource;
};

export type HearingVerdict =
  /** What anybody knows of this device's partitions this device knows. */
  | { readonly kind: "heard" }
  | { readonly kind: "silent"; readonly ids: readonly string[]; readonly reason: string }
  /** Whom to ask is not known. */
  | { readonly kind: "unread"; readonly reason: string }
  /** One of them takes other devices for the first members: which of the two is mistaken only an operator can tell. */
  | { readonly kind: "other-base"; readonly id: string };

const SPACES: readonly Space[] = ["account", "container", "object"];
/** Devices that are named in a reason. */
const NAMED_LIMIT = 8;

/** In words, for logs and `ringstead repair status`; the same ones as long as nothing changes. */
export const wordsOf = (verdict: Exclude<HearingVerdict, { kind: "heard" }>): string => {
  if (verdict.kind === "other-base")
    return `${verdict.id} has another ring as its base than this node: ${OTHER_BASE_REMEDY}`;
  if (verdict.kind === "unread")
    return `too few members of some partitions vote, and which devices may know whether those were moved is not known: copy the ring from another node (${verdict.reason})`;
  const named = verdict.ids.slice(0, NAMED_LIMIT).join(", ");
  const more = verdict.ids.length > NAMED_LIMIT ? ` and ${verdict.ids.length - NAMED_LIMIT} more` : "";
  return `too few members of some partitions vote, and ${named}${more} cannot be asked whether those were moved: bring them back, or take them out of the rings (${verdict.reason})`;
};

/**
 * What a device without votes hears before it may believe that nobody has moved a partition in which too few others vote ([M4]). Those who kept it at the
 * beginning may all have lost their disks, and would agree that there is nothing, while its data is with others:
 *
 *     no vote ──asks all devices of the rings──▶ silent ──all have answered──▶ heard ──▶ the partitions that are still this device's
 *                                                  ▲  └── asked again                        may be joined without a quorum of votes
 *                                                  └───── another base, or a ring that cannot be read: until an operator has put it right
 *
 * It need be heard once: what is decided afterwards needs votes of a quorum, and these hear of it themselves.
 */
export class EpochHearing {
  readonly #parts: HearingParts;
  readonly #heard = new Set<string>();
  /** Whom the rings named when they were asked last. */
  #required: readonly string[] | undefined;
  #otherBase: string | undefined;
  #unread: string | undefined;
  #reason = "";

  constructor(parts: HearingParts) {
    this.#parts = parts;
  }

  get verdict(): HearingVerdict {
    if (this.#otherBase !== undefined) return { kind: "other-base", id: this.#otherBase };
    if (this.#unread !== undefined) return { kind: "unread", reason: this.#unread };
    const ids = this.#required?.filter((id) => !this.#heard.has(id));
    if (ids === undefined) return { kind: "silent", ids: [], reason: "nobody was asked yet" };
    return ids.length === 0 ? { kind: "heard" } : { kind: "silent", ids, reason: this.#reason };
  }

  /** Asks those that have not answered yet, and whom they name. Resolves when each has answered or will not for now. */
  async listen(): Promise<void> {
    const { circle, replica } = this.#parts;
    const { required, others, unread } = circle();
    const { self } = replica.epochs;
    this.#otherBase = undefined;
    this.#unread = unread;
    const asked = new Set([self, ...this.#heard]);
    for (let next = [...required, ...others]; next.length > 0; ) {
      const fresh = [...new Set(next)].filter((id) => !asked.has(id));
      for (const id of fresh) asked.add(id);
      next = (await Promise.all(fresh.map((id) => this.#hear(id)))).flat();
    }
    this.#required = required.filter((id) => id !== self);
  }

  /** Takes over what one device knows, if it answers; gives whom it names. */
  async #hear(id: string): Promise<readonly string[]> {
    const named = new Set<string>();
    try {
      const peer = this.#parts.peerOf(id);
      for (const space of SPACES) if (!(await this.#hearOf(space, id, peer, named))) return [];
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      this.#reason = `${id}: ${codeOf(error)}: ${messageOf(error)}`;
      return [...named];
    }
    this.#heard.add(id);
    return [...named];
  }

  /** Whether that device began as this one did. */
  async #hearOf(space: Space, id: string, peer: RepairSource, named: Set<string>): Promise<boolean> {
    const { powers, replica } = this.#parts;
    const { epochs } = replica;
    const partitionPower = powers[space];
    for (let from = 0; ; ) {
      const { baseIdentity, moved, next } = await peer.epochs(space, partitionPower, from);
      const own = epochs.baseIdentityOf(space);
      if (baseIdentity !== undefined && own !== undefined && baseIdentity !== own) {
        this.#otherBase = id;
        return false;
      }
      for (const { configuration, partition } of moved) {
        if (partition >= 2 ** partitionPower) continue;
        for (const member of membersOf(configuration)) named.add(member.id);
        const place = { space, partition, partitionPower };
        const isNews = configuration.epoch > epochs.configurationOf(place).epoch;
        if (isNews && epochs.concerns(place, configuration)) await replica.configure(place, configuration);
      }
      if (next === undefined || next <= from) return true;
      from = next;
    }
  }
}
