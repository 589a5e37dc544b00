import { identityError } from "../core/identity-error.ts";
import { type IdentityRoute, openRoute } from "./identity-route.ts";

/** Tokens signed as CMS went with Keystone's Newton; old clients that ask for their certificates learn that from the real service, too. */
const gone = (path: string): IdentityRoute =>
  openRoute({
    method: "GET",
    path,
    request: {},
    handler: () => {
      throw identityError("gone", "This API is no longer available due to the removal of support for PKI tokens.");
    },
  });

export const PKI_ROUTES: readonly IdentityRoute[] = [
  gone("/v3/OS-SIMPLE-CERT/ca"),
  gone("/v3/OS-SIMPLE-CERT/certificates"),
  gone("/v3/auth/tokens/OS-PKI/revoked"),
];
