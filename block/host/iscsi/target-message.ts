import { RingsteadError } from "../../../common/errors.ts";
import { TARGET_REFUSALS, type TargetRequest } from "../core/iscsi-target.ts";

/* The control protocol of tgtd 1.0.85: FORMAT.md. */
const HEADER_BYTES = 120;
const ANSWER_BYTES = 8;
const DRIVER_AT = 8;
const MODES = { system: 0, target: 1, disk: 2, connection: 6, account: 7 } as const;
const OPERATIONS = { new: 0, delete: 1, show: 2, bind: 3, unbind: 4, update: 5 } as const;
const DISK_NUMBER = 1n;
const NO_DISK = 0xffff_ffff_ffff_ffffn;
/** The daemon takes no more at once. */
const PARAMETERS_LIMIT_BYTES = 4096;

/** A request as the daemon reads it. Throws RingsteadError `bad-message` for parameters that would be read as others. */
export const encodeTargetRequest = (request: TargetRequest): Buffer => {
  const pairs = request.parameters ?? [];
  if (pairs.some(([, value]) => /[,\0]/.test(value)))
    throw new RingsteadError("bad-message", "a target's parameters have commas or zeros");
  const text = pairs.map(([name, value]) => `${name}=${value}`).join(",");
  const parameters = pairs.length === 0 ? Buffer.alloc(0) : Buffer.from(`${text}\0`);
  if (parameters.length > PARAMETERS_LIMIT_BYTES)
    throw new RingsteadError("bad-message", "a target's parameters are too long");
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(MODES[request.mode], 0);
  header.writeUInt32LE(OPERATIONS[request.operation], 4);
  header.write("iscsi", DRIVER_AT, "latin1");
  header.writeUInt32LE(HEADER_BYTES + parameters.length, 72);
  header.writeInt32LE(request.tid ?? -1, 76);
  header.writeBigUInt64LE(BigInt(request.sessionId ?? 0), 80);
  header.writeBigUInt64LE(request.mode === "disk" ? DISK_NUMBER : NO_DISK, 88);
  header.writeUInt32LE(request.isForced === true ? 1 : 0, 116);
  return Buffer.concat([header, parameters]);
};

/** The text of an answer. Throws RingsteadError `target-refused` with what the daemon says, `target-lost` for half an answer. */
export const decodeTargetAnswer = (answer: Buffer, request: TargetRequest): string => {
  if (answer.length < ANSWER_BYTES || answer.length < answer.readUInt32LE(4))
    throw new RingsteadError(
      "target-lost",
      `the iSCSI daemon broke off in its answer to ${request.operation} of a ${request.mode}: ${answer.length} bytes`,
    );
  const code = answer.readUInt32LE(0);
  const text = answer.toString("utf8", ANSWER_BYTES);
  if (code === 0 || request.isDoneAlready?.some((refusal) => TARGET_REFUSALS[refusal] === code) === true) return text;
  const known = Object.entries(TARGET_REFUSALS).find(([, number]) => number === code)?.[0];
  // Parameters may be secrets: they are not said.
  const what = `${request.operation} of a ${request.mode}`;
  throw new RingsteadError("target-refused", `the iSCSI daemon refused ${what}: ${known ?? `error ${code}`}`, { code });
};
