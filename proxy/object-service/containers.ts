import { type Incarnation, NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import type { StoragePolicy } from "../../common/storage-policy.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import {
  type ContainerRecord,
  decodeContainerRecord,
  type Register,
  type Row,
  type RowSummary,
} from "../../storage-node/wire.ts";
import { accountRow } from "../core/container-account.ts";
import { finishContainer } from "../core/container-closing.ts";
import { type ContainerPlace, type OpenContainer, setOf } from "../core/container-place.ts";
import { presentContainer, putContainer, readContainer, settleContainer } from "../core/container-script.ts";
import { countRows, type ListObstacle } from "../core/list-rows.ts";
import { row, type Script } from "../core/script.ts";
import { COPY_SETTINGS, settleShard } from "../core/shard-change.ts";
import { deleteWhole } from "../core/shard-deletion.ts";
import { countContainer, listContainer, sumOf } from "../core/shard-list.ts";
import { rangesIn, ROOT, shardPlaceOf } from "../core/shard-ranges.ts";
import { readAvailable } from "./available-read.ts";
import type { Ballots } from "./ballots.ts";
import { ContainerAt, type ShardMemories } from "./container-place.ts";
import { noSpace } from "./no-space.ts";
import { headersWith, type Policies } from "./policies.ts";
import type { ReplicaSet } from "./partition.ts";
import type { Partitions } from "./partitions.ts";
import type { PageQuery } from "./row-reader.ts";
import type { ScriptRunner } from "./script-runner.ts";

/** A container as faces see it. */
export type Container = {
  readonly account: string;
  readonly name: string;
  readonly incarnation: Incarnation;
  readonly headers: Readonly<Record<string, string>>;
  readonly created: HybridTimestamp;
  readonly changed: HybridTimestamp;
  readonly policy: StoragePolicy;
  /** As it was read. */
  readonly record: ContainerRecord;
};

/** A shard, or ROOT, of a container's life of which something is left to do: its change goes on, or its rows are over. */
export type ShardWork = {
  readonly account: string;
  readonly container: string;
  readonly incarnation: Incarnation;
  readonly id: string;
};

/** Records that this proxy remembers, and for how long: other proxies may change one meanwhile; ROW checks it anyway. */
const CACHE_LIMIT = 20_000;
const CACHE_MS = 1000;
/** Listings begun anew because the container changed under them. */
const RETRY_LIMIT = 8;
/** Shards whose figures are asked for at the same time. */
const SHARDS_AT_ONCE = 32;
/** Shards that wait for the sharder; what does not fit is found again. */
const SHARD_WORK_LIMIT = 1000;

const absent = (account: string, name: string): RingsteadError =>
  new RingsteadError("no-such-container", "The resource could not be found.", { account, container: name });
const unavailable = (account: string, name: string): RingsteadError =>
  new RingsteadError("quorum-unavailable", "the container's state cannot be settled", { account, container: name });
const unknown = (account: string, name: string): RingsteadError =>
  new RingsteadError("outcome-unknown", "too few replicas answer: the write may or may not take effect", {
    account,
    container: name,
  });

/** Containers: registers of their own (PROTOCOL section 5), listed in their account. `core/container-script.ts` decides. */
export class Containers {
  readonly #partitions: Partitions;
  readonly #runner: ScriptRunner;
  readonly #ballots: Ballots;
  readonly #policies: Policies;
  readonly #cache = new Map<string, { readonly container: Container; readonly untilMs: number }>();
  readonly #changedRows = new Map<string, Container>();
  readonly #memories: ShardMemories = new Map();
  readonly #shardWork = new Map<string, ShardWork>();

  constructor(partitions: Partitions, runner: ScriptRunner, ballots: Ballots, policies: Policies) {
    this.#partitions = partitions;
    this.#runner = runner;
    this.#ballots = ballots;
    this.#policies = policies;
  }

  /** The container, from memory for up to a second. Errors: "no-such-container", "quorum-unavailable". */
  known(account: string, name: string): Container | Promise<Container> {
    const cached = this.#cache.get(`${account}/${name}`);
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.container;
    return this.get(account, name);
  }

  /** Whether any container can be of policy `available`. */
  get mayBeAvailable(): boolean {
    return this.#policies.hasAvailable;
  }

  /** The container where it was of policy `available` up to a second ago: later it may have been made anew, with another one. */
  rememberedAvailable(account: string, name: string): Container | undefined {
    const cached = this.#cache.get(`${account}/${name}`);
    if (cached === undefined || cached.untilMs <= performance.now()) return undefined;
    return cached.container.policy.consistency === "available" ? cached.container : undefined;
  }

  /** The container by an established read; one of policy `available`, where no quorum answers, as one member has it. Errors: as `known`. */
  async get(account: string, name: string): Promise<Container> {
    const place = this.placeOf(account, name);
    const found = await this.#runner.run(readContainer(place));
    if (found === "unavailable" && this.mayBeAvailable) {
      const partial = await this.#getAvailable(account, name, this.availablePlaceOf(account, name));
      if (partial !== undefined) return partial;
    }
    return this.#found(account, name, found);
  }

  /**
   * What any member says of a container of policy `available` ([H5]); undefined where a quorum can tell, or none says so. What is not confirmed is believed of a life that
   * this proxy has read before: it may never take effect, and then what is written into it is lost.
   */
  async #getAvailable(
    account: string,
    name: string,
    { container }: ContainerPlace<ReplicaSet>,
  ): Promise<Container | undefined> {
    const read = await readAvailable(container, 0, (ballot) => this.#ballots.heard(ballot));
    if (read === undefined || read.members >= container.partition.members.quorum.readCount) return undefined;
    const { register } = read;
    if (register === undefined || register.isTombstone || register.state === "void") return undefined;
    const record = decodeContainerRecord(register.metadata);
    const remembered = this.#cache.get(`${account}/${name}`)?.container;
    const isBelieved = register.state === "confirmed" || remembered?.incarnation === record.incarnation;
    const isFit = record.status === "open" && this.#policies.of(record.headers).consistency === "available";
    return isBelieved && isFit ? this.#remember(account, name, { record, version: register.version }) : undefined;
  }

  /**
   * Makes the container, or changes the headers of the one that is there. `change` gives the headers to keep from those there were. Errors: "container-of-other-policy"
   * where it has another one than the `wanted`, and nothing is changed; "no-such-container", "device-full", "outcome-unknown".
   */
  async put(
    account: string,
    name: string,
    change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
    mustExist: boolean,
    wanted?: StoragePolicy,
  ): Promise<{ isNew: boolean }> {
    this.forget(account, name);
    const policies = this.#policies;
    const isOther = (headers: Readonly<Record<string, string>>): boolean =>
      wanted !== undefined && policies.of(headers).index !== wanted.index;
    const changed = (headers: Readonly<Record<string, string>>, isNew: boolean): Record<string, string> => {
      if (isNew) return headersWith(change(headers), wanted ?? policies.standard);
      return isOther(headers) ? { ...headers } : change(headers);
    };
    const result = await this.#runner.run(putContainer(this.placeOf(account, name), changed, mustExist));
    if (result === "absent") throw absent(account, name);
    if (result === "unknown") throw unknown(account, name);
    if (result === "no-space") throw noSpace(`${account}/${name}`);
    this.#remember(account, name, result);
    if (isOther(result.record.headers))
      throw new RingsteadError("container-of-other-policy", "The container has another storage policy.");
    return { isNew: result.isNew };
  }

  /** [B3], [B4]. Errors: "no-such-container", "container-not-empty", "device-full", "outcome-unknown". */
  async delete(account: string, name: string): Promise<void> {
    this.forget(account, name);
    const result = await this.#runner.run(deleteWhole(this.placeOf(account, name), COPY_SETTINGS));
    this.forget(account, name);
    switch (result) {
      case "deleted":
        return;
      case "absent":
        throw absent(account, name);
      case "not-empty":
        throw new RingsteadError("container-not-empty", "There was a conflict when trying to complete your request.");
      case "no-space":
        throw noSpace(`${account}/${name}`);
      case "unknown":
        throw unknown(account, name);
    }
  }

  /** Live rows of one page; fewer than asked for only at the end. Errors: as `known`. */
  page(container: Container, query: PageQuery): Promise<Row[]> {
    return this.#listed(container, (place, record) => listContainer(place, record, query));
  }

  /** Errors: as `known`. */
  async summary(container: Container): Promise<RowSummary> {
    return (await this.#summaryAtOnce(container)) ?? this.#listed(container, countContainer);
  }

  /** Of all shards at the same time; undefined where there is one alone, or one has to be asked for otherwise. */
  async #summaryAtOnce({ account, name, record }: Container): Promise<RowSummary | undefined> {
    const ranges = rangesIn(record);
    if (ranges.length === 1) return undefined;
    const place = this.placeOf(account, name);
    const summaries: RowSummary[] = [];
    for (let at = 0; at < ranges.length; at += SHARDS_AT_ONCE) {
      const counted = await Promise.all(
        ranges
          .slice(at, at + SHARDS_AT_ONCE)
          .map(({ id }) => this.#runner.run(countRows(setOf(place, record.incarnation, id), record.incarnation))),
      );
      for (const summary of counted) {
        if (typeof summary === "string") return undefined;
        summaries.push(summary);
      }
    }
    return sumOf(summaries);
  }

  /** The same where hand-offs may keep rows (`../core/hand-off-keep.ts`). */
  availablePlaceOf(account: string, name: string): ContainerPlace<ReplicaSet> {
    const place = this.placeOf(account, name);
    return {
      name,
      account: place.account,
      container: this.#partitions.available(place.container),
      shardOf: (incarnation, id) => this.#partitions.available(place.shardOf(incarnation, id)),
      memory: place,
    };
  }

  /** Where a container's record, its shards and its row in the account are kept. */
  placeOf(account: string, name: string): ContainerAt {
    return new ContainerAt(this.#partitions, this.#memories, account, name);
  }

  /** What this proxy remembers of the container is out of date. */
  forget(account: string, name: string): void {
    this.#cache.delete(`${account}/${name}`);
  }

  /** Its rows changed: the account's statistics have to follow. */
  changed(container: Container): void {
    this.#changedRows.set(`${container.account}/${container.name}`, container);
  }

  /** Containers whose rows changed since the last call. */
  takeChanged(): Container[] {
    const changed = [...this.#changedRows.values()];
    this.#changedRows.clear();
    return changed;
  }

  /** Brings a container's statistics into its account's listing; where it is gone there is nothing to bring. */
  async report(container: Container): Promise<void> {
    const summary = await this.summary(container).catch((error: unknown) => {
      if (codeOf(error) === "no-such-container") return undefined;
      throw error;
    });
    if (summary === undefined) return;
    const listed = accountRow(container.name, this.#ballots.next(container.incarnation), summary);
    const outcome = await this.#runner.run(row(this.#partitions.account(container.account), NO_INCARNATION, listed));
    if (outcome !== "stored") throw unavailable(container.account, container.name);
  }

  /** [B7]: finishes what a replica reports as left behind. `isThorough`: and brings replicas that lag to it. Errors: "quorum-unavailable". */
  async settle(account: string, name: string, register: Register, isThorough: boolean): Promise<void> {
    const shard = shardPlaceOf(account, name);
    if (shard !== undefined) return this.#settleShard(shard);
    const place = this.placeOf(account, name);
    const isLeft = register.state === "accepted";
    if (isLeft && (await this.#runner.run(finishContainer(place, register))) === "unavailable") {
      throw unavailable(account, name);
    }
    const { incarnation, shards, status } = decodeContainerRecord(register.metadata);
    // What goes on for long is reported all the while, and in good hands: no PREPARE is to come in between.
    if (!isLeft && status === "open" && shards !== undefined)
      return this.#noteShardWork({ account, container: name, incarnation, id: ROOT });
    const end = isThorough
      ? await this.#runner.run(settleContainer(place))
      : await this.#runner.run(readContainer(place));
    if (end === "unavailable") throw unavailable(account, name);
  }

  async #settleShard(work: ShardWork): Promise<void> {
    const { account, container, id, incarnation } = work;
    const fate = await this.#runner.run(settleShard(this.placeOf(account, container), incarnation, id));
    if (fate === "unavailable") throw unavailable(account, container);
    if (fate !== "used") this.#noteShardWork(work);
  }

  #noteShardWork(work: ShardWork): void {
    if (this.#shardWork.size >= SHARD_WORK_LIMIT) return;
    this.#shardWork.set(`${work.account}/${work.container} ${work.incarnation} ${work.id}`, work);
  }

  /** Shards of which something is left to do, as far as it was found since the last call. */
  takeShardWork(): ShardWork[] {
    const work = [...this.#shardWork.values()];
    this.#shardWork.clear();
    return work;
  }

  /** A listing bound to one incarnation. That it is over means that the container was deleted after it was found: 404. */
  async #listed<T extends object>(
    container: Container,
    script: (place: ContainerPlace<ReplicaSet>, record: ContainerRecord) => Script<ReplicaSet, T | ListObstacle>,
  ): Promise<T> {
    const { account, incarnation, name, policy } = container;
    const isAvailable = policy.consistency === "available";
    const place = isAvailable ? this.availablePlaceOf(account, name) : this.placeOf(account, name);
    const bare: ContainerRecord = { status: "open", incarnation, headers: {} };
    let record = container.record.incarnation === incarnation ? container.record : bare;
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const listed = await this.#runner.run(script(place, record));
      if (typeof listed !== "string") return listed;
      if (listed === "unavailable") break;
      // That names are elsewhere is read as everything is; of whom has yet to hear of something a PREPARE tells.
      const isSplit = listed === "split" && attempt === 0;
      const found = await this.#runner.run(isSplit ? readContainer(place) : presentContainer(place));
      const present = this.#found(account, name, found);
      if (present.incarnation !== incarnation) throw absent(account, name);
      ({ record } = present);
    }
    throw unavailable(account, name);
  }

  #found(account: string, name: string, found: OpenContainer | "absent" | "unavailable"): Container {
    if (typeof found !== "string") return this.#remember(account, name, found);
    this.forget(account, name);
    throw found === "absent" ? absent(account, name) : unavailable(account, name);
  }

  #remember(account: string, name: string, { record, version }: OpenContainer): Container {
    const container: Container = {
      account,
      name,
      incarnation: record.incarnation,
      headers: record.headers,
      created: record.incarnation.slice(0, 16) as HybridTimestamp,
      changed: timestampIn(version),
      policy: this.#policies.of(record.headers),
      record,
    };
    this.placeOf(account, name).learn({ record, version });
    if (this.#cache.size >= CACHE_LIMIT) {
      const oldest = this.#cache.keys().next();
      if (!oldest.done) this.#cache.delete(oldest.value);
    }
    this.#cache.set(`${account}/${name}`, { container, untilMs: performance.now() + CACHE_MS });
    return container;
  }
}
