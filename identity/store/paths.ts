import { join } from "node:path";

/** Every file that the identity service keeps, beneath DIR/identity. */
export type IdentityPaths = {
  readonly root: string;
  readonly database: string;
  /** Private keys, mode 0600: `<created, ms>-<key id>.json`, each one JWK. The newest signs. */
  readonly keysDir: string;
  /** 32 random bytes as hex, mode 0600: encrypts credentials. */
  readonly credentialKey: string;
  /** The public keys, for everyone on this node who verifies tokens. */
  readonly publicKeys: string;
  /** Written by the supervisor. */
  readonly adminPassword: string;
};

export const identityPaths = (root: string): IdentityPaths => ({
  root,
  database: join(root, "identity.db"),
  keysDir: join(root, "keys"),
  credentialKey: join(root, "keys", "credential.key"),
  publicKeys: join(root, "jwks.json"),
  adminPassword: join(root, "admin-password"),
});
