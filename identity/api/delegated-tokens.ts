import { identityError } from "../core/identity-error.ts";
import type { Caller } from "./identity-route.ts";

/** Methods whose tokens carry a right that somebody handed on. */
const DELEGATING = ["application_credential", "oauth1", "ec2credential"];

const refuse = (message: string): never => {
  throw identityError("forbidden", `You are not authorized to perform the requested action: ${message}`);
};

/** A right that was handed on must not outlive its hand-over in a secret made from it. Throws `forbidden`. */
export const refuseDelegated = ({ token }: Pick<Caller, "token">, what: string): void => {
  if (token.delegation !== undefined || token.methods.some((method) => DELEGATING.includes(method))) {
    refuse(`Delegated tokens cannot ${what}.`);
  }
};

/** As `refuseDelegated`, but lets tokens of application credentials, and of those only unrestricted ones where `manages`. */
export const refuseDelegatedButCredential = ({ token }: Caller, what: string, manages: boolean): void => {
  const { delegation, methods } = token;
  if (delegation?.kind === "application-credential") {
    if (manages && delegation.restricted) {
      refuse("Using method 'application_credential' is not allowed for managing additional application credentials.");
    }
    return;
  }
  if (delegation !== undefined || methods.some((method) => DELEGATING.includes(method))) {
    refuse(`Delegated tokens cannot ${what}.`);
  }
};
