import type { Clock } from "../../common/clock.ts";
import type { IdentityConfig } from "../config.ts";
import type { AuthenticationRequest } from "../core/authentication-request.ts";
import type { CredentialCipher } from "../store/credential-cipher.ts";
import type { Directory, DirectoryUser } from "../store/directory.ts";
import type { PasswordHasher } from "../store/password-hasher.ts";
import type { Changes } from "../store/changes.ts";
import type { Reader } from "../store/assignments.ts";
import type { Delegation } from "../delegation.ts";
import type { TokenContext } from "../token-verifier.ts";
import type { LoginLimiter } from "./login-limiter.ts";

/** What a method has to work with. */
export type MethodContext = Reader & {
  readonly config: IdentityConfig;
  readonly clock: Clock;
  readonly directory: Directory;
  readonly hasher: PasswordHasher;
  readonly cipher: CredentialCipher;
  readonly changes: Changes;
  readonly limiter: LoginLimiter;
  /** Signature, expiry and revocation of a token. Throws `unauthorized`. */
  identify(token: string): Promise<TokenContext>;
};

/** Whom a method has recognized, and what that login is limited to. */
export type Recognized = {
  readonly user: DirectoryUser;
  /** Set where a token was the method: its chain goes on, and its expiry is the limit. */
  readonly from?: TokenContext;
  readonly delegation?: Delegation;
  readonly federation?: NonNullable<TokenContext["federation"]>;
};

type Attempt = Pick<AuthenticationRequest, "remoteAddress" | "signed">;

/**
 * One way to say who one is. `payload` is the client's, unchecked. Throws `bad-request` where it lacks something, `unauthorized`,
 * `too-many-logins`, `too-busy`.
 */
export type AuthenticationMethod = {
  readonly name: string;
  recognize(payload: unknown, context: MethodContext, attempt: Attempt): Promise<Recognized>;
};
