import type { Ballot } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import type { RpcHandler, RpcReply } from "../common/rpc/server.ts";
import type { DeviceReplica } from "./device-replica.ts";
import type { NewBody } from "./engine/device-engine.ts";
import type { Staging } from "./staging.ts";
import {
  HeaderReader,
  INLINE_BODY_LIMIT_BYTES,
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
  packFates,
  packRegister,
  packRow,
  type Proposal,
  type Row,
  TRANSFER_BLOCK_BYTES,
} from "./wire.ts";

/** One device as the dispatcher sees it. */
export type ServedDevice = { readonly replica: DeviceReplica; readonly staging: Staging };

type Operation = (device: ServedDevice, reader: HeaderReader, body: Buffer, reply: RpcReply) => Promise<void>;

const PROPOSAL_BODIES = ["none", "inline", "staged", "keep"] as const;
const OWN_VERSIONS_LIMIT = 64;
const CONFIRMS_LIMIT = 1024;

const ownVersions = (reader: HeaderReader): Ballot[] => reader.list(OWN_VERSIONS_LIMIT).map((item) => item.ballot());

const accept: Operation = async ({ replica, staging }, reader, body, reply) => {
  const name = reader.name();
  const version = reader.ballot();
  const ballot = reader.ballot();
  const proposal: Proposal = {
    bodyVersion: reader.ballot(),
    isTombstone: reader.flag(),
    bodyLength: reader.count(),
    metadata: reader.bytes(),
    body: reader.oneOf(PROPOSAL_BODIES),
  };
  const stagedId = reader.count();
  const own = ownVersions(reader);
  let newBody: NewBody = { kind: "none" };
  if (proposal.body === "inline") {
    if (body.length !== proposal.bodyLength)
      throw new RingsteadError("bad-message", "body length differs from the record's");
    newBody = { kind: "bytes", bytes: body };
  } else if (proposal.body === "staged") {
    newBody = { kind: "staged", file: staging.sealed(stagedId), length: proposal.bodyLength };
  }
  const answer = await replica.accept(name, version, ballot, proposal, newBody, own);
  switch (answer.kind) {
    case "accepted":
      if (proposal.body === "staged") staging.committed(stagedId);
      return reply.ok(answer.liveRow === undefined ? [0] : [0, packRow(answer.liveRow)]);
    case "refused":
      return reply.ok([1, answer.seen, answer.floor, packFates(answer.fates)]);
    case "nodata":
      return reply.ok([2]);
  }
};

const prepare: Operation = async ({ replica }, reader, _body, reply) => {
  const answer = await replica.prepare(reader.name(), reader.ballot(), ownVersions(reader));
  if (answer.kind === "refused") reply.ok([1, answer.seen, answer.floor, packFates(answer.fates)]);
  else reply.ok([0, packRegister(answer.register), packFates(answer.fates), packRow(answer.liveRow)]);
};

const read: Operation = async ({ replica }, reader, _body, reply) => {
  const name = reader.name();
  const bodyLimit = Math.min(reader.count(), INLINE_BODY_LIMIT_BYTES);
  for (let attempt = 0; ; attempt++) {
    const stored = await replica.read(name);
    if (stored === undefined) return reply.ok([null]);
    const { register, body } = stored;
    const carriesBody = body.kind === "log" && body.length > 0 && body.length <= bodyLimit;
    if (!carriesBody) return reply.ok([packRegister(register)]);
    try {
      const bytes = await replica.engine.readBody(body, 0, body.length);
      return reply.ok([packRegister(register), 1], bytes);
    } catch (error) {
      // The log moved on beneath the reference: the entry is read again, and names the new place.
      if (!(error instanceof RingsteadError) || error.code !== "body-gone" || attempt === 3) throw error;
    }
  }
};

const confirm: Operation = async ({ replica }, reader, _body, reply) => {
  for (const item of reader.list(CONFIRMS_LIMIT)) replica.confirm(item.name(), item.ballot(), item.flag());
  reply.ok([]);
};

const row: Operation = async ({ replica }, reader, _body, reply) => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const given: Row = {
    name: reader.text(),
    version: reader.ballot(),
    isDeleted: reader.flag(),
    objects: reader.integer(),
    bytes: reader.integer(),
    payload: reader.bytes(),
  };
  const answer = await replica.row(owner, incarnation, given);
  reply.ok([answer.kind]);
};

const list: Operation = async ({ replica }, reader, _body, reply) => {
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
  // The summary is taken before the page: rows stored meanwhile only make the hashes differ, which the proxy settles.
  const summary = replica.summary(owner);
  const answer = await replica.list(owner, incarnation, query);
  if (answer.reply !== undefined) return reply.ok([answer.reply.kind]);
  reply.ok(["rows", summary.rows, summary.objects, summary.bytes, summary.setHash], answer.body);
};

const readBody: Operation = async ({ replica }, reader, _body, reply) => {
  const name = reader.name();
  const bodyVersion = reader.ballot();
  const offset = reader.count();
  const length = Math.min(reader.count(), TRANSFER_BLOCK_BYTES);
  for (let attempt = 0; ; attempt++) {
    const stored = await replica.read(name);
    if (stored === undefined || stored.register.bodyVersion !== bodyVersion) {
      throw new RingsteadError("body-gone", "this replica does not hold that version's body");
    }
    try {
      return reply.ok([], await replica.engine.readBody(stored.body, offset, length));
    } catch (error) {
      if (!(error instanceof RingsteadError) || error.code !== "body-gone" || attempt === 3) throw error;
    }
  }
};

const OPERATIONS: Readonly<Record<number, Operation>> = {
  [METHOD_ACCEPT]: accept,
  [METHOD_PREPARE]: prepare,
  [METHOD_READ]: read,
  [METHOD_CONFIRM]: confirm,
  [METHOD_ROW]: row,
  [METHOD_LIST]: list,
  [METHOD_READ_BODY]: readBody,
  [METHOD_STAGE_OPEN]: async ({ staging }, _reader, _body, reply) => reply.ok([await staging.open()]),
  [METHOD_STAGE_WRITE]: async ({ staging }, reader, body, reply) => {
    await staging.write(reader.count(), body);
    reply.ok([]);
  },
  [METHOD_STAGE_SEAL]: async ({ staging }, reader, _body, reply) =>
    reply.ok([(await staging.seal(reader.count())).length]),
  [METHOD_STAGE_ABANDON]: async ({ staging }, reader, _body, reply) => {
    await staging.abandon(reader.count());
    reply.ok([]);
  },
};

/** Routes a message to its device: `[method, device, …]`. Errors: "bad-message", "no-such-device", the operation's own. */
export const dispatcher = (devices: ReadonlyMap<string, ServedDevice>): RpcHandler => {
  return (header, body, reply) => {
    const reader = new HeaderReader(header);
    const operation = OPERATIONS[reader.count()];
    const device = devices.get(reader.text());
    if (operation === undefined) throw new RingsteadError("bad-message", "unknown method");
    if (device === undefined) throw new RingsteadError("no-such-device", "this node does not serve that device");
    operation(device, reader, body, reply).catch((error: unknown) => reply.error(error));
  };
};
