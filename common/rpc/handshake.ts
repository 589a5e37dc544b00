import { createHmac, timingSafeEqual } from "node:crypto";

/** Bytes of each side's random challenge. */
export const CHALLENGE_BYTES = 32;

/** What a side sends to show that it knows the cluster key (FORMAT.md, Hello). */
export const proofOf = (
  clusterKey: Buffer,
  side: "client" | "server",
  serverChallenge: Buffer,
  clientChallenge: Buffer,
): Buffer => createHmac("sha256", clusterKey).update(side).update(serverChallenge).update(clientChallenge).digest();

/** Compares in constant time. */
export const isProof = (given: Buffer, expected: Buffer): boolean =>
  given.length === expected.length && timingSafeEqual(given, expected);
