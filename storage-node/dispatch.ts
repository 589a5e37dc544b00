import type { Ballot } from "../common/ballot.ts";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { PARTS_LIMIT } from "../common/rpc/frame.ts";
import type { BegunWork, RpcHandler, RpcReply } from "../common/rpc/server.ts";
import { explain, type OperatorAnswer, scrub } from "./daemons/scrubber-operations.ts";
import type { DeviceUpkeep } from "./daemons/scrubber-upkeep.ts";
import type { DeviceReplica } from "./device-replica.ts";
import type { NewBody } from "./engine/device-engine.ts";
import {
  buckets,
  configure,
  digests,
  entries,
  epoch,
  fetch,
  reclaim,
  type RepairAnswer,
  seal,
} from "./repair/repair-operations.ts";
import { epochs, release } from "./move-operations.ts";
import { counts, dropRows, rowName, rowsOf } from "./shard-operations.ts";
import { keep, keepRow, kept, keptRows, take } from "./hand-off-operations.ts";
import { readHeldBody } from "./repair/repair-source.ts";
import type { Staging } from "./staging.ts";
import { registerKey } from "./store/keys.ts";
import {
  HeaderReader,
  LIST_LIMIT,
  METHOD_ACCEPT,
  METHOD_CONFIRM,
  METHOD_LIST,
  METHOD_PREPARE,
  METHOD_READ,
  METHOD_READ_BODY,
  METHOD_ROW,
  METHOD_STAGE_ABANDON,
  METHOD_STAGE_OPEN,
  METHOD_STAGE_SEAL,
  METHOD_STAGE_WRITE,
  METHOD_UNSETTLED,
  METHOD_DIGESTS,
  METHOD_BUCKETS,
  METHOD_ENTRIES,
  METHOD_FETCH,
  METHOD_EPOCH,
  METHOD_EPOCHS,
  METHOD_CONFIGURE,
  METHOD_SEAL,
  METHOD_RELEASE,
  METHOD_RECLAIM,
  METHOD_COUNTS,
  METHOD_DROP_ROWS,
  METHOD_ROW_NAME,
  METHOD_ROWS,
  METHOD_SCRUB,
  METHOD_EXPLAIN,
  METHOD_KEEP,
  METHOD_KEEP_ROW,
  METHOD_KEPT,
  METHOD_KEPT_ROWS,
  METHOD_TAKE,
  packFates,
  packRegister,
  packRow,
  READ_BODY_LIMIT_BYTES,
  type Name,
  type Proposal,
  spaceCode,
  TRANSFER_BLOCK_BYTES,
} from "./wire.ts";

/** One device as the dispatcher sees it. */
export type ServedDevice = {
  readonly replica: DeviceReplica;
  readonly staging: Staging;
  /** From the moment on that the device's workers run. */
  upkeep?: DeviceUpkeep;
};

/** How one device of a message answers, as its part. */
class DeviceReply {
  readonly #reply: RpcReply;
  /** The device's place among those that the message names. */
  readonly part: number;

  constructor(reply: RpcReply, part: number) {
    this.#reply = reply;
    this.part = part;
  }

  ok(header: readonly unknown[], body?: Uint8Array): void {
    this.#reply.ok(header, body, this.part);
  }

  give(header: readonly unknown[], body: Uint8Array): void {
    this.#reply.give(header, body, this.part);
  }
}

/** Takes a message apart once; what it returns is run for each device that the message names. */
type Operation = (reader: HeaderReader, body: Buffer) => (device: ServedDevice, reply: DeviceReply) => Promise<void>;

const PROPOSAL_BODIES = ["none", "inline", "staged", "keep"] as const;
const OWN_VERSIONS_LIMIT = 64;
const CONFIRMS_LIMIT = 1024;
const NO_BODY: NewBody = { kind: "none" };

const ownVersions = (reader: HeaderReader): Ballot[] => reader.list(OWN_VERSIONS_LIMIT).map((item) => item.ballot());

/** The numbers of staged bodies, one for each device of the message. */
const stagedIds = (reader: HeaderReader): number[] => reader.list(PARTS_LIMIT).map((item) => item.count());

const idOf = (ids: readonly number[], reply: DeviceReply): number => {
  const id = ids[reply.part];
  if (id === undefined) throw new RingsteadError("bad-message", "a device without the number of its staged body");
  return id;
};

const accept: Operation = (reader, body) => {
  const name = reader.name();
  const version = reader.ballot();
  const ballot = reader.storedBallotOr(version);
  const proposal: Proposal = {
    bodyVersion: reader.ballotOr(version),
    isTombstone: reader.flag(),
    bodyLength: reader.count(),
    metadata: reader.bytes(),
    body: reader.oneOf(PROPOSAL_BODIES),
  };
  const ids = stagedIds(reader);
  const own = reader.isNull() ? [version] : ownVersions(reader);
  const epoch = reader.epoch();
  if (proposal.body === "inline" && body.length !== proposal.bodyLength) {
    throw new RingsteadError("bad-message", "body length differs from the record's");
  }
  return async ({ replica, staging }, reply) => {
    const stagedId = proposal.body === "staged" ? idOf(ids, reply) : 0;
    const newBody: NewBody =
      proposal.body === "inline"
        ? { kind: "bytes", bytes: body }
        : proposal.body === "staged"
          ? { kind: "staged", file: staging.sealed(stagedId), length: proposal.bodyLength }
          : NO_BODY;
    const answer = await replica.accept(name, version, ballot, proposal, newBody, own, epoch);
    switch (answer.kind) {
      case "accepted":
        if (proposal.body === "staged") staging.committed(stagedId);
        if (replica.engine.state().kind === "full") return reply.ok([0, packRow(answer.liveRow), 1]);
        return reply.ok(answer.liveRow === undefined ? [0] : [0, packRow(answer.liveRow)]);
      case "refused":
        return reply.ok([1, answer.seen, answer.floor, packFates(answer.fates)]);
      case "nodata":
        return reply.ok([2]);
    }
  };
};

const prepare: Operation = (reader) => {
  const name = reader.name();
  const ballot = reader.ballot();
  const own = ownVersions(reader);
  const wantedBytes = reader.count();
  const epoch = reader.epoch();
  return async ({ replica }, reply) => {
    if (wantedBytes > 0) replica.engine.requireRoom(wantedBytes);
    const answer = await replica.prepare(name, ballot, own, epoch);
    if (answer.kind === "refused") reply.ok([1, answer.seen, answer.floor, packFates(answer.fates)]);
    else reply.ok([0, packRegister(answer.register), packFates(answer.fates), packRow(answer.liveRow)]);
  };
};

/** Whoever asked reads from another replica now; here it is healed. */
const tellDamage = ({ upkeep }: ServedDevice, name: Name, error: unknown): never => {
  if (codeOf(error) === "body-damaged") upkeep?.healer.found(registerKey(name), "a read found its body damaged", false);
  throw error;
};

const read: Operation = (reader) => {
  const name = reader.name();
  const bodyLimit = Math.min(reader.count(), READ_BODY_LIMIT_BYTES);
  const epoch = reader.epoch();
  return async (device, reply) => {
    const { replica } = device;
    for (let attempt = 0; ; attempt++) {
      const stored = await replica.read(name, epoch);
      if (stored === undefined) return reply.ok([null]);
      const { register, body } = stored;
      const carriesBody = reply.part === 0 && body.kind === "log" && body.length > 0 && body.length <= bodyLimit;
      if (!carriesBody) return reply.ok([packRegister(register)]);
      try {
        const bytes = await replica.engine.readBody(body, 0, body.length);
        return reply.give([packRegister(register), 1], bytes);
      } catch (error) {
        // The log moved on beneath the reference: the entry is read again, and names the new place.
        if (codeOf(error) !== "body-gone" || attempt === 3) tellDamage(device, name, error);
      }
    }
  };
};

const confirm: Operation = (reader) => {
  const items = reader.list(CONFIRMS_LIMIT).map((item) => ({
    name: item.name(),
    version: item.ballot(),
    isVoid: item.flag(),
  }));
  return async ({ replica }, reply) => {
    for (const { name, version, isVoid } of items) replica.confirm(name, version, isVoid);
    reply.ok([]);
  };
};

const row: Operation = (reader) => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const given = reader.row();
  const epoch = reader.epoch();
  const isPlaced = reader.flag();
  const isKept = reader.flag();
  return async ({ replica }, reply) => {
    const answer = await replica.row(owner, incarnation, given, epoch, isPlaced, isKept);
    reply.ok([answer.kind]);
  };
};

const takeRows: Operation = (reader, body) => {
  const take = rowsOf(reader, body);
  return async ({ replica }, reply) => reply.ok((await take(replica)).header);
};

const list: Operation = (reader) => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const query = {
    marker: reader.text(),
    endMarker: reader.text(),
    prefix: reader.text(),
    isReverse: reader.flag(),
    limit: Math.min(reader.count(), LIST_LIMIT),
    withDeleted: reader.flag(),
  };
  const epoch = reader.epoch();
  const isCopy = reader.flag();
  return async ({ replica }, reply) => {
    // The summary is taken before the page: rows stored meanwhile only make the hashes differ, which the proxy settles.
    const summary = replica.summary(owner, incarnation);
    const answer = await replica.list(owner, incarnation, { ...query, isCopy }, epoch);
    if (answer.reply !== undefined) return reply.ok([answer.reply.kind]);
    const lengths = answer.runs.map((run) => run.length);
    const header: unknown[] = ["rows", summary.rows, summary.objects, summary.bytes, summary.setHash, lengths];
    if (isCopy) header.push(replica.shards.markOf(owner));
    reply.ok(header, answer.runs.length === 1 ? answer.runs[0] : Buffer.concat(answer.runs));
  };
};

const readBody: Operation = (reader) => {
  const name = reader.name();
  const bodyVersion = reader.ballot();
  const offset = reader.count();
  const length = Math.min(reader.count(), TRANSFER_BLOCK_BYTES);
  return async (device, reply) => {
    const reading = readHeldBody(device.replica, name, bodyVersion, offset, length);
    reply.give([], await reading.catch((error: unknown) => tellDamage(device, name, error)));
  };
};

const unsettled: Operation = (reader) => {
  const olderThanMs = reader.count();
  const from = reader.isNull() ? undefined : reader.bytes();
  return async ({ replica }, reply) => {
    const page = from === undefined ? replica.lately(olderThanMs) : await replica.unsettled(from, olderThanMs);
    const items = page.registers.map(({ name, register }) => [
      spaceCode(name.space),
      name.hash32,
      name.path,
      packRegister(register),
    ]);
    reply.ok([items, page.next ?? null]);
  };
};

/** What an operator's command asks. */
const operating =
  (
    operation: (reader: HeaderReader) => (replica: DeviceReplica, upkeep: DeviceUpkeep) => Promise<OperatorAnswer>,
  ): Operation =>
  (reader) => {
    const run = operation(reader);
    return async ({ replica, upkeep }, reply) => {
      if (upkeep === undefined) throw new RingsteadError("device-starting", "the device's workers do not run yet");
      const { header, body } = await run(replica, upkeep);
      reply.ok(header, body);
    };
  };

/** What another replica asks that repairs itself. */
const repairing =
  (operation: (reader: HeaderReader) => (replica: DeviceReplica) => Promise<RepairAnswer>): Operation =>
  (reader) => {
    const run = operation(reader);
    return async ({ replica }, reply) => {
      const { header, body } = await run(replica);
      if (body === undefined) reply.ok(header);
      else reply.give(header, body);
    };
  };

/** What concerns hand-offs. */
const handingOff =
  (operation: (reader: HeaderReader, body: Buffer) => (device: ServedDevice) => Promise<RepairAnswer>): Operation =>
  (reader, body) => {
    const run = operation(reader, body);
    return async (device, reply) => {
      const { header, body: given } = await run(device);
      reply.ok(header, given);
    };
  };

const OPERATIONS: Readonly<Record<number, Operation>> = {
  [METHOD_ACCEPT]: accept,
  [METHOD_PREPARE]: prepare,
  [METHOD_READ]: read,
  [METHOD_CONFIRM]: confirm,
  [METHOD_ROW]: row,
  [METHOD_LIST]: list,
  [METHOD_READ_BODY]: readBody,
  [METHOD_UNSETTLED]: unsettled,
  [METHOD_DIGESTS]: repairing(digests),
  [METHOD_BUCKETS]: repairing(buckets),
  [METHOD_ENTRIES]: repairing(entries),
  [METHOD_FETCH]: repairing(fetch),
  [METHOD_EPOCH]: repairing(epoch),
  [METHOD_CONFIGURE]: repairing(configure),
  [METHOD_SEAL]: repairing(seal),
  [METHOD_EPOCHS]: repairing(epochs),
  [METHOD_RELEASE]: repairing(release),
  [METHOD_RECLAIM]: repairing(reclaim),
  [METHOD_ROWS]: takeRows,
  [METHOD_ROW_NAME]: repairing(rowName),
  [METHOD_DROP_ROWS]: repairing(dropRows),
  [METHOD_COUNTS]: repairing(counts),
  [METHOD_KEEP]: handingOff(keep),
  [METHOD_KEEP_ROW]: handingOff(keepRow),
  [METHOD_KEPT]: handingOff(kept),
  [METHOD_KEPT_ROWS]: handingOff(keptRows),
  [METHOD_TAKE]: handingOff(take),
  [METHOD_SCRUB]: operating(scrub),
  [METHOD_EXPLAIN]: operating(explain),
  [METHOD_STAGE_OPEN]:
    () =>
    async ({ staging }, reply) =>
      reply.ok([await staging.open()]),
  [METHOD_STAGE_WRITE]: (reader, body) => {
    const ids = stagedIds(reader);
    return async ({ staging }, reply) => {
      await staging.write(idOf(ids, reply), body);
      reply.ok([]);
    };
  },
  [METHOD_STAGE_SEAL]: (reader) => {
    const ids = stagedIds(reader);
    return async ({ staging }, reply) => reply.ok([(await staging.seal(idOf(ids, reply))).length]);
  },
  [METHOD_STAGE_ABANDON]: (reader) => {
    const ids = stagedIds(reader);
    return async ({ staging }, reply) => {
      await staging.abandon(idOf(ids, reply));
      reply.ok([]);
    };
  },
};

const UPLOAD_METHODS: ReadonlySet<unknown> = new Set([
  METHOD_STAGE_WRITE,
  METHOD_STAGE_SEAL,
  METHOD_STAGE_ABANDON,
  METHOD_ACCEPT,
  METHOD_KEEP,
]);

/** Uploads of large bodies, which nobody can begin anew but the client. */
export const begunUploads = (devices: ReadonlyMap<string, ServedDevice>): BegunWork => ({
  isUnderWay: () => [...devices.values()].some(({ staging }) => staging.count > 0),
  admits: ([method]) => UPLOAD_METHODS.has(method),
});

/**
 * Routes a message to its devices: `[method, device or devices, …]`; each answers with its part.
 * Errors: "bad-message", "no-such-device", the operation's own.
 */
export const dispatcher = (devices: ReadonlyMap<string, ServedDevice>): RpcHandler => {
  return (header, body, reply) => {
    const reader = new HeaderReader(header);
    const operation = OPERATIONS[reader.count()];
    const names = reader.texts(PARTS_LIMIT);
    if (operation === undefined || names.length === 0) throw new RingsteadError("bad-message", "unknown method");
    const run = operation(reader, body);
    reply.expect(names.length);
    for (const [part, name] of names.entries()) {
      const device = devices.get(name);
      if (device === undefined) {
        reply.error(new RingsteadError("no-such-device", "this node does not serve that device"), part);
      } else {
        run(device, new DeviceReply(reply, part)).catch((error: unknown) => reply.error(error, part));
      }
    }
  };
};
