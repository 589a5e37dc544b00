import { RingsteadError } from "../common/errors.ts";
import type { TakeAnswer } from "./core/hand-off.ts";
import type { NewBody } from "./engine/device-engine.ts";
import type { ServedDevice } from "./dispatch.ts";
import type { RepairAnswer } from "./repair/repair-operations.ts";
import {
  type HeaderReader,
  LIST_LIMIT,
  type Name,
  packRegister,
  packRows,
  encodeRowValue,
  type Register,
  unpackRegister,
} from "./wire.ts";

/** How the body of a kept register comes: not at all since there is none, with the message, as a staged file; or the copy is offered without it first. */
const COPY_BODIES = ["none", "inline", "staged", "offered"] as const;

type CopyMessage = {
  readonly name: Name;
  readonly register: Register;
  /** Undefined where the copy is offered without the body that it has. */
  bodyFor(device: ServedDevice): NewBody | undefined;
  /** To be called when the engine has the body that was given, which is its own from then on. */
  stored(device: ServedDevice): void;
  /** To be called instead where it did not need the body: nobody else would remove a staged one. */
  abandoned(device: ServedDevice): Promise<void>;
};

const copyOf = (reader: HeaderReader, bytes: Buffer): CopyMessage => {
  const name = reader.name();
  const register = unpackRegister(reader.nested());
  if (register === undefined) throw new RingsteadError("bad-message", "malformed message: a copy of nothing");
  const kind = reader.oneOf(COPY_BODIES);
  const stagedId = reader.count();
  if (kind === "inline" && bytes.length !== register.bodyLength)
    throw new RingsteadError("bad-message", "body length differs from the record's");
  return {
    name,
    register,
    bodyFor({ staging }) {
      switch (kind) {
        case "none":
          return { kind: "none" };
        case "inline":
          return { kind: "bytes", bytes };
        case "staged":
          return { kind: "staged", file: staging.sealed(stagedId), length: register.bodyLength };
        case "offered":
          return undefined;
      }
    },
    stored({ staging }) {
      if (kind === "staged") staging.committed(stagedId);
    },
    async abandoned({ staging }) {
      if (kind === "staged") await staging.abandon(stagedId);
    },
  };
};

/** KEEP: the device keeps a version for a member that is away. Answers with the ballot that it keeps now: a higher one than was given is a refusal ([H2]). */
export const keep = (reader: HeaderReader, bytes: Buffer) => {
  const copy = copyOf(reader, bytes);
  return async (device: ServedDevice): Promise<RepairAnswer> => {
    const { ballot, isStored } = await device.replica.handOffs.keep(copy.name, copy.register, copy.bodyFor(device));
    if (isStored) copy.stored(device);
    // Its writer takes a ballot above what is kept, and names the same staged body again.
    else if (ballot === copy.register.ballot) await copy.abandoned(device);
    return { header: [ballot] };
  };
};

const TAKE_CODES = { settled: 0, wanted: 1, unsettled: 2 } as const satisfies Record<TakeAnswer, number>;

/** TAKE: a hand-off gives a member what it kept. */
export const take = (reader: HeaderReader, bytes: Buffer) => {
  const copy = copyOf(reader, bytes);
  const epoch = reader.epoch();
  return async (device: ServedDevice): Promise<RepairAnswer> => {
    const { answer, hasUsedBody } = await device.replica.take(copy.name, copy.register, copy.bodyFor(device), epoch);
    if (hasUsedBody) copy.stored(device);
    else await copy.abandoned(device);
    return { header: [TAKE_CODES[answer]] };
  };
};

/** KEEP_ROW: the device keeps a row for a member that is away. */
export const keepRow = (reader: HeaderReader) => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const row = reader.row();
  return async ({ replica }: ServedDevice): Promise<RepairAnswer> => {
    await replica.handOffs.keepRow(owner, incarnation, row);
    return { header: [] };
  };
};

/** KEPT: what the device keeps of a name. */
export const kept = (reader: HeaderReader) => {
  const name = reader.name();
  return async ({ replica }: ServedDevice): Promise<RepairAnswer> => ({
    header: [packRegister((await replica.handOffs.find(name))?.register)],
  });
};

/** KEPT_ROWS: one page of what the device keeps of a listing, deleted rows too. */
export const keptRows = (reader: HeaderReader) => {
  const owner = reader.name();
  const incarnation = reader.incarnation();
  const query = {
    marker: reader.text(),
    endMarker: reader.text(),
    prefix: reader.text(),
    isReverse: reader.flag(),
    limit: Math.min(reader.count(), LIST_LIMIT),
    withDeleted: true,
  };
  return async ({ replica }: ServedDevice): Promise<RepairAnswer> => {
    const rows = await replica.handOffs.rows(owner, incarnation, query);
    const packed = packRows(
      rows.map((row) => ({ name: Buffer.from(row.name), value: encodeRowValue(row), isDeleted: row.isDeleted })),
    );
    return { header: [], body: packed };
  };
};
