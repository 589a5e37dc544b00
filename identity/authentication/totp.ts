import { createHmac, timingSafeEqual } from "node:crypto";
import { identityError, unauthorized } from "../core/identity-error.ts";
import { spendOnce } from "../store/spent-codes.ts";
import type { AuthenticationMethod, MethodContext } from "./method.ts";
import { findUser, reference, requiredMember } from "./references.ts";

/** RFC 6238 with the parameters that every authenticator knows. */
const PERIOD_MS = 30_000;
const DIGITS = 6;
/** Steps before the present one that are still good: a code that was read at the end of its time. */
const STEPS_BACK = 1;
const PASSCODE_MAX = 64;
const TYPE = "totp";
/** Two of a million codes are right at any time. A wrong one counts as much as this many wrong passwords, or guessing would pay within days. */
const FAILURE_WEIGHT = 6;

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** Base32 of RFC 4648, padded or not; undefined for anything else. */
export const decodeBase32 = (text: string): Buffer | undefined => {
  const bytes: number[] = [];
  let bits = 0;
  let value = 0;
  for (const character of text.trim().replace(/=+$/, "")) {
    const digit = ALPHABET.indexOf(character);
    if (digit === -1) return undefined;
    value = ((value << 5) | digit) & 0xfff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((value >> bits) & 0xff);
  }
  return bytes.length === 0 ? undefined : Buffer.from(bytes);
};

/** The code of a time step, with leading zeros. Source: RFC 4226, section 5.3. */
export const totpCode = (secret: Buffer, step: number): string => {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const digest = createHmac("sha1", secret).update(counter).digest();
  const offset = (digest.at(-1) ?? 0) & 0xf;
  const number = digest.readUInt32BE(offset) & 0x7fff_ffff;
  return String(number % 10 ** DIGITS).padStart(DIGITS, "0");
};

const isEqual = (left: string, right: string): boolean =>
  left.length === right.length && timingSafeEqual(Buffer.from(left, "latin1"), Buffer.from(right, "latin1"));

/** The step whose code `passcode` is, undefined where it is none of now. */
export const stepOf = (secret: Buffer, passcode: string, nowMs: number): number | undefined => {
  if (!/^\d{6}$/.test(passcode)) return undefined;
  const now = Math.floor(nowMs / PERIOD_MS);
  for (let step = now; step >= Math.max(0, now - STEPS_BACK); step -= 1) {
    if (isEqual(totpCode(secret, step), passcode)) return step;
  }
  return undefined;
};

/** Whether the code is right for one of the user's authenticators and was never used there before. */
const isAccepted = async (context: MethodContext, userId: string, passcode: string): Promise<boolean> => {
  const { database, cipher, changes, clock } = context;
  const rows = await database
    .selectFrom("credentials")
    .select(["id", "blob"])
    .where("user_id", "=", userId)
    .where("type", "=", TYPE)
    .execute();
  const nowMs = clock.nowMs();
  for (const { id, blob } of rows) {
    // A blob that is no base32 is a credential without a use, not a fault of this request.
    const secret = decodeBase32(cipher.open(id, blob));
    const step = secret && stepOf(secret, passcode, nowMs);
    if (step === undefined) continue;
    const expiresAtMs = (step + STEPS_BACK + 1) * PERIOD_MS;
    if (await spendOnce(changes, `totp ${id} ${step}`, nowMs, expiresAtMs)) return true;
  }
  return false;
};

/** `{"user": {"id" | "name" + "domain", "passcode"}}`: a code of an authenticator whose seed is a credential of type `totp`, in base32. */
export const totpMethod: AuthenticationMethod = {
  name: "totp",
  recognize: async (payload, context, { remoteAddress }) => {
    const given = requiredMember(payload, "user", "totp");
    const named = reference(given, "user");
    const passcode = requiredMember(given, "passcode", "user");
    if (typeof passcode !== "string" || passcode.length > PASSCODE_MAX) {
      throw identityError("bad-request", "Invalid input for field 'user/passcode'");
    }
    const address = `address ${remoteAddress}`;
    context.limiter.assertAllowed([address]);
    const user = await findUser(context, context.directory, named);
    const key = `totp ${user?.id ?? JSON.stringify(named)}`;
    using attempt = await context.limiter.begin([address, [key, FAILURE_WEIGHT]]);
    if (user !== undefined && (await isAccepted(context, user.id, passcode))) return { user };
    attempt.failed();
    throw unauthorized("wrong user or passcode, or one that was used before");
  },
};
