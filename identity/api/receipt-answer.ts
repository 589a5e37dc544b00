import type { MissingFactors } from "../receipts.ts";
import { isoMicroseconds } from "./times.ts";

/** The answer to a login that lacks a factor: what is proved so far, as a receipt, and the methods that would complete it. */
export const receiptAnswer = ({ receipt, methods, user, issuedAtMs, expiresAtMs, required }: MissingFactors) => ({
  headers: { "openstack-auth-receipt": receipt },
  body: {
    receipt: {
      methods,
      user,
      expires_at: isoMicroseconds(expiresAtMs),
      issued_at: isoMicroseconds(issuedAtMs),
    },
    required_auth_methods: required,
  },
});
