import { BALLOT_BYTES, type Ballot, ballotOver, proposedBallotIn, versionStoredOver } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { StoredRegister } from "../core/register.ts";
import type { VersionState } from "../wire.ts";

/** A register's value in the engine (FORMAT.md). */
const FORMAT = 1;
const FLAG_TOMBSTONE = 1;
const FLAG_OTHER_BALLOT = 2;
const FLAG_OTHER_BODY_VERSION = 4;
/** The version is stored over the one that was accepted under the ballot (`ballotOver`). */
const FLAG_STORED_OVER = 8;
const FIXED_BYTES = 3 + BALLOT_BYTES + 6;
const VERSION_OFFSET = 3;
const STATES: readonly VersionState[] = ["accepted", "confirmed", "void"];

export const encodeRegister = (register: StoredRegister): Buffer => {
  const over = versionStoredOver(register.ballot);
  if (over !== undefined && over !== register.version) throw new Error("a version under another one's ballot");
  const hasOtherBallot = register.ballot !== register.version;
  const hasOtherBodyVersion = register.bodyVersion !== register.version;
  const extra = (hasOtherBallot ? BALLOT_BYTES : 0) + (hasOtherBodyVersion ? BALLOT_BYTES : 0);
  const value = Buffer.allocUnsafe(FIXED_BYTES + extra + register.metadata.length);
  value[0] = FORMAT;
  value[1] = STATES.indexOf(register.state);
  value[2] =
    (register.isTombstone ? FLAG_TOMBSTONE : 0) |
    (hasOtherBallot ? FLAG_OTHER_BALLOT : 0) |
    (hasOtherBodyVersion ? FLAG_OTHER_BODY_VERSION : 0) |
    (over === undefined ? 0 : FLAG_STORED_OVER);
  value.write(register.version, VERSION_OFFSET, "hex");
  value.writeUIntBE(register.bodyLength, 3 + BALLOT_BYTES, 6);
  let at = FIXED_BYTES;
  if (hasOtherBallot) at += value.write(proposedBallotIn(register.ballot), at, "hex");
  if (hasOtherBodyVersion) at += value.write(register.bodyVersion, at, "hex");
  value.set(register.metadata, at);
  return value;
};

/** Whether a register's value says that its version is confirmed or void. */
export const isSettledValue = (value: Uint8Array): boolean => value[1] !== STATES.indexOf("accepted");

/** Where a register's value has its version and the ballot that was proposed, 24 bytes each; both are the same where it names one for both. */
export const ballotOffsetsIn = (value: Uint8Array): readonly [number, number] => [
  VERSION_OFFSET,
  ((value[2] ?? 0) & FLAG_OTHER_BALLOT) === 0 ? VERSION_OFFSET : FIXED_BYTES,
];

/** Whether the version in a register's value belongs to its ballot, behind the one that was proposed. */
export const isStoredOver = (value: Uint8Array): boolean => ((value[2] ?? 0) & FLAG_STORED_OVER) !== 0;

/** Whether a value that was encoded here is a deletion; told by one byte, for scans over many. */
export const isTombstoneValue = (value: Uint8Array): boolean => ((value[2] ?? 0) & FLAG_TOMBSTONE) !== 0;

/** Errors: "register-damaged" for what no encoder wrote. */
export const decodeRegister = (bytes: Uint8Array): StoredRegister => {
  const value = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const flags = value[2] ?? 0;
  const extra = (flags & FLAG_OTHER_BALLOT ? BALLOT_BYTES : 0) + (flags & FLAG_OTHER_BODY_VERSION ? BALLOT_BYTES : 0);
  const state = STATES[value[1] ?? 255];
  if (value[0] !== FORMAT || state === undefined || value.length < FIXED_BYTES + extra) {
    throw new RingsteadError("register-damaged", "a register's value cannot be decoded", { length: value.length });
  }
  const version = value.toString("hex", VERSION_OFFSET, VERSION_OFFSET + BALLOT_BYTES) as Ballot;
  let at = FIXED_BYTES;
  const next = (): Ballot => {
    const ballot = value.toString("hex", at, at + BALLOT_BYTES) as Ballot;
    at += BALLOT_BYTES;
    return ballot;
  };
  const proposed = flags & FLAG_OTHER_BALLOT ? next() : version;
  const ballot = flags & FLAG_STORED_OVER ? ballotOver(proposed, version) : proposed;
  const bodyVersion = flags & FLAG_OTHER_BODY_VERSION ? next() : version;
  return {
    version,
    ballot,
    state,
    bodyVersion,
    isTombstone: (flags & FLAG_TOMBSTONE) !== 0,
    bodyLength: value.readUIntBE(3 + BALLOT_BYTES, 6),
    metadata: value.subarray(at),
  };
};
