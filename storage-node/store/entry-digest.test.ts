import { expect, test } from "vitest";
import { ballotOf, NO_INCARNATION, type Ballot } from "../../common/ballot.ts";
import type { HybridTimestamp } from "../../common/hybrid-clock.ts";
import type { StoredRegister } from "../core/register.ts";
import { encodeRowValue, type Name, type Row } from "../wire.ts";
import { bucketIn, entryDigests } from "./entry-digest.ts";
import { CEILING_KEY, countersKey, registerKey, rowKey } from "./keys.ts";
import { encodeRegister } from "./register-format.ts";

const scheme = entryDigests(Buffer.alloc(32, 1));
const at = (number: number): Ballot =>
  ballotOf(NO_INCARNATION, number.toString(16).padStart(16, "0") as HybridTimestamp, "00000001");
const object: Name = { space: "object", hash32: 0xabcd1234, path: "/a/c/o" };
const container: Name = { space: "container", hash32: 0x00010000, path: "/a/c" };
const account: Name = { space: "account", hash32: 0xffffffff, path: "/a" };

const register: StoredRegister = {
  version: at(5),
  ballot: at(5),
  state: "accepted",
  bodyVersion: at(5),
  isTombstone: false,
  bodyLength: 7,
  metadata: Buffer.from("metadata"),
};
const row: Row = { name: "o", version: at(5), isDeleted: false, objects: 1, bytes: 7, payload: Buffer.from("p") };

test("registers and rows have buckets of their ring, what each device has for itself has none", () => {
  expect(scheme.bucketOf(registerKey(object))).toBe(bucketIn("object", 0xabcd));
  expect(scheme.bucketOf(registerKey(container))).toBe(bucketIn("container", 1));
  expect(scheme.bucketOf(rowKey(container, "o/with/slashes", false))).toBe(bucketIn("container", 1));
  expect(scheme.bucketOf(rowKey(container, "o", true))).toBe(bucketIn("container", 1));
  expect(scheme.bucketOf(registerKey(account))).toBe(bucketIn("account", 0xffff));
  expect(scheme.bucketOf(rowKey(account, "c", false))).toBe(scheme.bucketCount - 1);
  for (const own of [CEILING_KEY, countersKey(container), countersKey(account), Buffer.of(1, 2, 3)])
    expect(scheme.bucketOf(own)).toBe(-1);
});

test("every key lies in the range of keys that its bucket belongs to", () => {
  for (const name of [object, container, account]) {
    const key = registerKey(name);
    const group = Math.floor(scheme.bucketOf(key) / scheme.groupSize);
    expect(Buffer.compare(scheme.firstKeyOf(group), key)).toBeLessThanOrEqual(0);
    expect(Buffer.compare(key, scheme.firstKeyOf(group + 1))).toBeLessThan(0);
  }
  expect(scheme.bucketCount % scheme.groupSize).toBe(0);
});

test("a digest tells versions, ballots and names apart, and not how far a confirmation has come", () => {
  const key = registerKey(object);
  const digestOf = (changes: Partial<StoredRegister>, under = key): bigint =>
    scheme.digestOf(under, encodeRegister({ ...register, ...changes }));
  const known = digestOf({});
  expect(digestOf({ state: "confirmed" })).toBe(known);
  expect(digestOf({ ballot: at(6) })).not.toBe(known);
  expect(digestOf({ version: at(6), ballot: at(6) })).not.toBe(known);
  expect(digestOf({ ballot: at(6), bodyVersion: at(4) })).toBe(digestOf({ ballot: at(6) }));
  expect(digestOf({}, registerKey({ ...object, path: "/a/c/p" }))).not.toBe(known);
  const rowDigest = (changes: Partial<Row>, isDeleted = false): bigint =>
    scheme.digestOf(rowKey(container, "o", isDeleted), encodeRowValue({ ...row, ...changes }));
  expect(rowDigest({ payload: Buffer.from("q") })).toBe(rowDigest({}));
  expect(rowDigest({ version: at(6) })).not.toBe(rowDigest({}));
  expect(rowDigest({}, true)).not.toBe(rowDigest({}));
});

test("another cluster key gives another scheme, and other digests", () => {
  const other = entryDigests(Buffer.alloc(32, 2));
  expect(other.id).not.toBe(scheme.id);
  const value = encodeRegister(register);
  expect(other.digestOf(registerKey(object), value)).not.toBe(scheme.digestOf(registerKey(object), value));
});
