import { type Incarnation, isIncarnation } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Name, Space } from "../wire.ts";

/**
 * Keys of what a device keeps as a hand-off (FORMAT.md): among its own, so that nothing of it is listed, compared, counted or given back as a member's. Ring (1 byte),
 * hash32 (4 bytes, big-endian), kind (1 byte), path, and for rows a zero byte, the incarnation, another zero byte and the name.
 */
const PREFIX = Buffer.from([0, 0, 0, 0, 0x21, 0x68]);
const SPACES: readonly Space[] = ["object", "container", "account"];
const KIND_REGISTER = 0x6f;
const KIND_ROW = 0x72;
const PATH_OFFSET = PREFIX.length + 6;
const INCARNATION_DIGITS = 24;

/** The range of all of them. */
export const KEPT_KEYS = { gte: PREFIX, lt: Buffer.from([0, 0, 0, 0, 0x21, 0x69]) } as const;

export const isKeptKey = (key: Uint8Array): boolean =>
  key.length > PATH_OFFSET && Buffer.compare(key.subarray(0, PREFIX.length), PREFIX) === 0;

const keyOf = ({ hash32, space }: Name, kind: number, text: string): Buffer => {
  const key = Buffer.allocUnsafe(PATH_OFFSET + Buffer.byteLength(text));
  PREFIX.copy(key);
  key[PREFIX.length] = SPACES.indexOf(space);
  key.writeUInt32BE(hash32, PREFIX.length + 1);
  key[PATH_OFFSET - 1] = kind;
  key.write(text, PATH_OFFSET);
  return key;
};

export const keptRegisterKey = (name: Name): Buffer => keyOf(name, KIND_REGISTER, name.path);

/** With "" as its name where the rows of an owner begin. */
export const keptRowKey = (owner: Name, incarnation: Incarnation, rowName: string): Buffer =>
  keyOf(owner, KIND_ROW, `${owner.path}\0${incarnation}\0${rowName}`);

/** What lies under a key: a register, or one row of a listing. */
export type KeptPlace =
  | { readonly kind: "register"; readonly name: Name }
  | { readonly kind: "row"; readonly name: Name; readonly incarnation: Incarnation; readonly rowName: string };

/** Errors (thrown): "kept-damaged" for what no encoder wrote. */
export const keptPlaceOf = (key: Uint8Array): KeptPlace => {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.length);
  const space = SPACES[bytes[PREFIX.length] ?? SPACES.length];
  if (!isKeptKey(key) || space === undefined) throw damaged();
  const hash32 = bytes.readUInt32BE(PREFIX.length + 1);
  const text = bytes.toString("utf8", PATH_OFFSET);
  if (bytes[PATH_OFFSET - 1] === KIND_REGISTER) return { kind: "register", name: { space, hash32, path: text } };
  const end = text.indexOf("\0");
  const incarnation = text.slice(end + 1, end + 1 + INCARNATION_DIGITS);
  const nameAt = end + 1 + INCARNATION_DIGITS;
  if (bytes[PATH_OFFSET - 1] !== KIND_ROW || end < 0 || !isIncarnation(incarnation) || text[nameAt] !== "\0")
    throw damaged();
  return {
    kind: "row",
    name: { space, hash32, path: text.slice(0, end) },
    incarnation,
    rowName: text.slice(nameAt + 1),
  };
};

const damaged = (): RingsteadError => new RingsteadError("kept-damaged", "a key of a hand-off cannot be decoded");
