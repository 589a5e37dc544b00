import { type Incarnation, NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { Register, Row, RowSummary } from "../../storage-node/wire.ts";
import {
  accountRow,
  type ContainerPlace,
  deleteContainer,
  finishContainer,
  type OpenContainer,
  presentContainer,
  putContainer,
  readContainer,
  settleContainer,
} from "../core/container-script.ts";
import { countRows, type ListObstacle, listRows } from "../core/list-rows.ts";
import { row, type Script } from "../core/script.ts";
import type { Ballots } from "./ballots.ts";
import { noSpace } from "./no-space.ts";
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
};

/** Records that this proxy remembers, and for how long: other proxies may change one meanwhile; ROW checks it anyway. */
const CACHE_LIMIT = 20_000;
const CACHE_MS = 1000;
/** Listings begun anew because the container changed under them. */
const RETRY_LIMIT = 5;

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
  readonly #cache = new Map<string, { readonly container: Container; readonly untilMs: number }>();
  readonly #changedRows = new Map<string, Container>();

  constructor(partitions: Partitions, runner: ScriptRunner, ballots: Ballots) {
    this.#partitions = partitions;
    this.#runner = runner;
    this.#ballots = ballots;
  }

  /** The container, from memory for up to a second. Errors: "no-such-container", "quorum-unavailable". */
  known(account: string, name: string): Container | Promise<Container> {
    const cached = this.#cache.get(`${account}/${name}`);
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.container;
    return this.get(account, name);
  }

  /** The container by an established read. Errors: as `known`. */
  async get(account: string, name: string): Promise<Container> {
    const found = await this.#runner.run(readContainer(this.placeOf(account, name)));
    return this.#found(account, name, found);
  }

  /** Makes the container, or changes the headers of the one that is there. `change` gives the headers to keep from those there were. */
  async put(
    account: string,
    name: string,
    change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
    mustExist: boolean,
  ): Promise<{ isNew: boolean }> {
    this.forget(account, name);
    const result = await this.#runner.run(putContainer(this.placeOf(account, name), change, mustExist));
    if (result === "absent") throw absent(account, name);
    if (result === "unknown") throw unknown(account, name);
    if (result === "no-space") throw noSpace(`${account}/${name}`);
    this.#remember(account, name, result);
    return { isNew: result.isNew };
  }

  /** [B3], [B4]. Errors: "no-such-container", "container-not-empty", "device-full", "outcome-unknown". */
  async delete(account: string, name: string): Promise<void> {
    this.forget(account, name);
    const result = await this.#runner.run(deleteContainer(this.placeOf(account, name)));
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
    return this.#listed(container, (set) => listRows(set, container.incarnation, query));
  }

  /** Errors: as `known`. */
  summary(container: Container): Promise<RowSummary> {
    return this.#listed(container, (set) => countRows(set, container.incarnation));
  }

  /** Where a container's record and its row in the account are kept. */
  placeOf(account: string, name: string): ContainerPlace<ReplicaSet> {
    return {
      container: this.#partitions.container(account, name),
      account: this.#partitions.account(account),
      name,
    };
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
    const set = this.#partitions.container(container.account, container.name);
    const summary = await this.#runner.run(countRows(set, container.incarnation));
    if (summary === "moved") return;
    if (typeof summary === "string") throw unavailable(container.account, container.name);
    const listed = accountRow(container.name, this.#ballots.next(container.incarnation), summary);
    const outcome = await this.#runner.run(row(this.#partitions.account(container.account), NO_INCARNATION, listed));
    if (outcome !== "stored") throw unavailable(container.account, container.name);
  }

  /** [B7]: finishes what a replica reports as left behind. `isThorough`: and brings replicas that lag to it. Errors: "quorum-unavailable". */
  async settle(account: string, name: string, register: Register, isThorough: boolean): Promise<void> {
    const place = this.placeOf(account, name);
    const isLeft = register.state === "accepted";
    if (isLeft && (await this.#runner.run(finishContainer(place, register))) === "unavailable") {
      throw unavailable(account, name);
    }
    const end = isThorough
      ? await this.#runner.run(settleContainer(place))
      : await this.#runner.run(readContainer(place));
    if (end === "unavailable") throw unavailable(account, name);
  }

  /** A listing bound to one incarnation. That it is over means that the container was deleted after it was found: 404. */
  async #listed<T extends object>(
    container: Container,
    script: (set: ReplicaSet) => Script<ReplicaSet, T | ListObstacle>,
  ): Promise<T> {
    const { account, name } = container;
    const place = this.placeOf(account, name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const listed = await this.#runner.run(script(place.container));
      if (typeof listed !== "string") return listed;
      if (listed === "unavailable") break;
      const present = this.#found(account, name, await this.#runner.run(presentContainer(place)));
      if (present.incarnation !== container.incarnation) throw absent(account, name);
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
    };
    if (this.#cache.size >= CACHE_LIMIT) {
      const oldest = this.#cache.keys().next();
      if (!oldest.done) this.#cache.delete(oldest.value);
    }
    this.#cache.set(`${account}/${name}`, { container, untilMs: performance.now() + CACHE_MS });
    return container;
  }
}
