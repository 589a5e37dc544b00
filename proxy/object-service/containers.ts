import { type Ballot, incarnationMadeBy, type Incarnation, NO_INCARNATION, timestampIn } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import {
  type ContainerRecord,
  decodeContainerRecord,
  encodeContainerRecord,
  type Register,
  type Row,
  type RowSummary,
} from "../../storage-node/wire.ts";
import type { WriteRecord } from "../core/register-write.ts";
import type { Ballots } from "./ballots.ts";
import type { RegisterIo } from "./register-io.ts";
import type { Replicas, ReplicaSet } from "./replicas.ts";
import type { PageQuery, RowReader } from "./row-reader.ts";

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
const RETRY_LIMIT = 10;
const HIGHEST_STAMP = "ffffffffffffffffffffffff";
const NOTHING = new Uint8Array();

const recordOf = (record: ContainerRecord, isTombstone = false): WriteRecord => ({
  isTombstone,
  bodyLength: 0,
  metadata: encodeContainerRecord(record),
  body: "none",
  bodyVersion: undefined,
});

const liveRecord = (register: Register | undefined): ContainerRecord | undefined =>
  register === undefined || register.isTombstone || register.state === "void"
    ? undefined
    : decodeContainerRecord(register.metadata);

/** Containers: registers of their own (PROTOCOL section 5), listed in their account. */
export class Containers {
  readonly #replicas: Replicas;
  readonly #io: RegisterIo;
  readonly #rows: RowReader;
  readonly #ballots: Ballots;
  readonly #cache = new Map<string, { readonly container: Container; readonly untilMs: number }>();
  readonly #changedRows = new Map<string, Container>();

  constructor(replicas: Replicas, io: RegisterIo, rows: RowReader, ballots: Ballots) {
    this.#replicas = replicas;
    this.#io = io;
    this.#rows = rows;
    this.#ballots = ballots;
  }

  /** The container, from memory for up to a second. Errors: "no-such-container", "quorum-unavailable". */
  async known(account: string, name: string): Promise<Container> {
    const cached = this.#cache.get(`${account}/${name}`);
    if (cached !== undefined && cached.untilMs > performance.now()) return cached.container;
    return this.get(account, name);
  }

  /** The container by an established read. Errors: as `known`. */
  async get(account: string, name: string): Promise<Container> {
    const set = this.#replicas.container(account, name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const read = await this.#io.read(set, 0);
      if (!read.isSettled && read.register !== undefined) {
        await this.#finish(account, name, set, read.register);
        continue;
      }
      const record = liveRecord(read.register);
      if (record?.status === "closing") {
        await this.#finishClosing(account, name, set, record);
        continue;
      }
      if (record === undefined || read.register === undefined) {
        this.#cache.delete(`${account}/${name}`);
        throw new RingsteadError("no-such-container", "The resource could not be found.", { account, container: name });
      }
      return this.#remember(account, name, record, read.register.version);
    }
    throw new RingsteadError("quorum-unavailable", "the container's state cannot be settled", {
      account,
      container: name,
    });
  }

  /** Makes the container, or changes the headers of the one that is there. `change` gives the headers to keep from those there were. */
  async put(
    account: string,
    name: string,
    change: (headers: Readonly<Record<string, string>>) => Record<string, string>,
    mustExist: boolean,
  ): Promise<{ isNew: boolean }> {
    const set = this.#replicas.container(account, name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      let written: ContainerRecord | undefined;
      let isNew = false;
      const { outcome } = await this.#io.write(
        set,
        {
          kind: "conditional",
          decide: (base, ballot) => {
            const record = liveRecord(base);
            if (record?.status === "closing" || (record === undefined && mustExist)) return "stop";
            isNew = record === undefined;
            const headers = change(record?.headers ?? {});
            written = { status: "open", incarnation: record?.incarnation ?? incarnationMadeBy(ballot), headers };
            return recordOf(written);
          },
        },
        { kind: "none" },
        () => NO_INCARNATION,
      );
      if (outcome.kind === "established" && written !== undefined) {
        await this.#listInAccount(
          account,
          name,
          written.incarnation,
          { rows: 0, objects: 0, bytes: 0, setHash: "" },
          !isNew,
        );
        this.#io.confirm(set, outcome.version);
        this.#remember(account, name, written, outcome.version);
        return { isNew };
      }
      if (outcome.kind === "stopped") {
        const record = liveRecord(outcome.base);
        if (record === undefined) throw new RingsteadError("no-such-container", "The resource could not be found.");
        await this.#finishClosing(account, name, set, record);
        continue;
      }
      await this.#afterFailure(account, name, set, outcome);
    }
    throw new RingsteadError("outcome-unknown", "the write may or may not take effect", { account, container: name });
  }

  /** [B3], [B4]. Errors: "no-such-container", "container-not-empty", "outcome-unknown". */
  async delete(account: string, name: string): Promise<void> {
    const set = this.#replicas.container(account, name);
    let hasProposed = false;
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const promisedRows: { row: Row; record: ContainerRecord | undefined }[] = [];
      let closing: ContainerRecord | undefined;
      let found: Row | undefined;
      const { outcome } = await this.#io.write(
        set,
        {
          kind: "conditional",
          decide: (base) => {
            const record = liveRecord(base);
            if (record === undefined) return "stop";
            if (!hasProposed) found = promisedRows.find((item) => item.record?.incarnation === record.incarnation)?.row;
            if (found !== undefined) return "stop";
            hasProposed = true;
            closing = { ...record, status: "closing" };
            return recordOf(closing);
          },
        },
        { kind: "none" },
        () => NO_INCARNATION,
        (row, register) => promisedRows.push({ row, record: liveRecord(register) }),
      );
      if (outcome.kind === "stopped") {
        const record = liveRecord(outcome.base);
        if (record === undefined) throw new RingsteadError("no-such-container", "The resource could not be found.");
        if (found !== undefined) {
          await this.#io.row(set, record.incarnation, found);
          throw new RingsteadError("container-not-empty", "There was a conflict when trying to complete your request.");
        }
      }
      if (outcome.kind === "established" && closing !== undefined) {
        this.#cache.delete(`${account}/${name}`);
        this.#io.confirm(set, outcome.version);
        if (await this.#finishClosing(account, name, set, closing)) return;
        throw new RingsteadError("container-not-empty", "There was a conflict when trying to complete your request.");
      }
      await this.#afterFailure(account, name, set, outcome);
    }
    throw new RingsteadError("outcome-unknown", "the deletion may or may not take effect", {
      account,
      container: name,
    });
  }

  /** Live rows of one page. */
  page(container: Container, query: PageQuery): Promise<Row[]> {
    return this.#rows.page(this.#replicas.container(container.account, container.name), container.incarnation, query);
  }

  summary(container: Container): Promise<RowSummary> {
    return this.#rows.summary(this.#replicas.container(container.account, container.name), container.incarnation);
  }

  /** Writes an object's row. Resolves to the container's present state when the row was refused because its incarnation is over ([B5]). */
  async writeRow(container: Container, row: Row): Promise<"stored" | "moved"> {
    const set = this.#replicas.container(container.account, container.name);
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const outcome = await this.#io.row(set, container.incarnation, row);
      if (outcome === "stored") {
        this.#changedRows.set(`${container.account}/${container.name}`, container);
        return "stored";
      }
      if (row.isDeleted && outcome === "moved") return "stored";
      if (outcome === "unavailable") break;
      this.#cache.delete(`${container.account}/${container.name}`);
      const present = await this.#presentByPrepare(container, set);
      if (present === undefined || present.incarnation !== container.incarnation) return "moved";
      if (present.status === "closing") await this.#finishClosing(container.account, container.name, set, present);
    }
    throw new RingsteadError("quorum-unavailable", "too few replicas of the container answer", {
      container: container.name,
    });
  }

  /** Containers whose rows changed since the last call, for the account's statistics. */
  takeChanged(): Container[] {
    const changed = [...this.#changedRows.values()];
    this.#changedRows.clear();
    return changed;
  }

  /** Brings a container's statistics into its account's listing. */
  async report(container: Container): Promise<void> {
    const summary = await this.summary(container);
    await this.#listInAccount(container.account, container.name, container.incarnation, summary, false);
  }

  /** [B5]: through a PREPARE, not a plain read. A container that lags behind on some replicas is brought up to date by it. */
  async #presentByPrepare(container: Container, set: ReplicaSet): Promise<ContainerRecord | undefined> {
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      let record: ContainerRecord | undefined;
      const { outcome } = await this.#io.write(
        set,
        {
          kind: "conditional",
          decide: (base) => {
            record = liveRecord(base);
            return record === undefined ? "stop" : recordOf(record);
          },
        },
        { kind: "none" },
        () => NO_INCARNATION,
      );
      if (outcome.kind === "stopped") return undefined;
      if (outcome.kind === "established") {
        this.#io.confirm(set, outcome.version);
        return record;
      }
      await this.#afterFailure(container.account, container.name, set, outcome);
    }
    return undefined;
  }

  /** After *closing* is established: looks at the rows of W replicas that accept it; true when the container is gone, false when it was reopened. */
  async #finishClosing(account: string, name: string, set: ReplicaSet, closing: ContainerRecord): Promise<boolean> {
    for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
      const look = await this.#replaceRecord(set, closing, recordOf({ ...closing, status: "closing" }));
      if (look === "other") return false;
      if (look === "failed") continue;
      const isEmpty = look.every((row) => row.isDeleted);
      const end: WriteRecord = isEmpty
        ? recordOf({ ...closing, status: "closing" }, true)
        : recordOf({ ...closing, status: "open" });
      const result = await this.#replaceRecord(set, closing, end);
      if (result === "other") return isEmpty;
      if (result === "failed") continue;
      this.#cache.delete(`${account}/${name}`);
      if (isEmpty) await this.#removeFromAccount(account, name, closing.incarnation);
      return isEmpty;
    }
    throw new RingsteadError("outcome-unknown", "the deletion may or may not take effect", {
      account,
      container: name,
    });
  }

  /** Replaces a closing record of one incarnation; gives the live rows that the accepting replicas hold. */
  async #replaceRecord(
    set: ReplicaSet,
    closing: ContainerRecord,
    next: WriteRecord,
  ): Promise<readonly Row[] | "other" | "failed"> {
    const { outcome, liveRows } = await this.#io.write(
      set,
      {
        kind: "conditional",
        decide: (base) => {
          const record = liveRecord(base);
          return record?.status === "closing" && record.incarnation === closing.incarnation ? next : "stop";
        },
      },
      { kind: "none" },
      () => NO_INCARNATION,
    );
    if (outcome.kind === "stopped") return "other";
    if (outcome.kind === "established") {
      this.#io.confirm(set, outcome.version);
      return liveRows;
    }
    if (outcome.kind === "unfinished") await this.#finishRegister(set, outcome.base);
    return "failed";
  }

  /** [R2] for a container: the version found is accepted at a quorum, listed in the account, confirmed. */
  async #finish(account: string, name: string, set: ReplicaSet, register: Register): Promise<void> {
    if (!(await this.#finishRegister(set, register))) return;
    const record = decodeContainerRecord(register.metadata);
    if (register.isTombstone) await this.#removeFromAccount(account, name, record.incarnation);
    else if (record.status === "open") {
      await this.#listInAccount(
        account,
        name,
        record.incarnation,
        { rows: 0, objects: 0, bytes: 0, setHash: "" },
        true,
      );
    }
    this.#io.confirm(set, register.version);
  }

  async #finishRegister(set: ReplicaSet, register: Register): Promise<boolean> {
    const record: WriteRecord = {
      isTombstone: register.isTombstone,
      bodyLength: 0,
      metadata: register.metadata,
      body: "none",
      bodyVersion: register.bodyVersion,
    };
    const mode = { kind: "finish", version: register.version, ballot: register.ballot, record } as const;
    const { outcome } = await this.#io.write(set, mode, { kind: "none" }, () => NO_INCARNATION);
    if (outcome.kind === "established") this.#io.confirm(set, register.version);
    return outcome.kind === "established";
  }

  async #afterFailure(
    account: string,
    name: string,
    set: ReplicaSet,
    outcome: { readonly kind: string; readonly base?: Register | undefined },
  ): Promise<void> {
    this.#cache.delete(`${account}/${name}`);
    if (outcome.kind === "unfinished" && outcome.base !== undefined)
      await this.#finish(account, name, set, outcome.base);
    else if (outcome.kind === "unknown") {
      throw new RingsteadError("outcome-unknown", "too few replicas answer: the write may or may not take effect", {
        account,
        container: name,
      });
    }
  }

  /**
   * The row's version begins with the container's incarnation, so that no late figure of an earlier life covers a later one; a
   * deletion ends the incarnation with the highest stamp.
   */
  async #listInAccount(
    account: string,
    name: string,
    incarnation: Incarnation,
    summary: RowSummary,
    onlyIfAbsent: boolean,
  ): Promise<void> {
    // A version of its own incarnation and no later stamp: it is there already unless its maker died before this row.
    const version = onlyIfAbsent ? ((incarnation + incarnation) as Ballot) : this.#ballots.next(incarnation);
    const row: Row = { name, version, isDeleted: false, objects: summary.rows, bytes: summary.bytes, payload: NOTHING };
    const outcome = await this.#io.row(this.#replicas.account(account), NO_INCARNATION, row);
    if (outcome !== "stored")
      throw new RingsteadError("quorum-unavailable", "too few replicas of the account answer", { account });
  }

  async #removeFromAccount(account: string, name: string, incarnation: Incarnation): Promise<void> {
    const version = (incarnation + HIGHEST_STAMP) as Ballot;
    const row: Row = { name, version, isDeleted: true, objects: 0, bytes: 0, payload: NOTHING };
    await this.#io.row(this.#replicas.account(account), NO_INCARNATION, row);
  }

  #remember(account: string, name: string, record: ContainerRecord, version: Ballot): Container {
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
