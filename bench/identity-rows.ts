import type { Row } from "./rows.ts";

/** One thing that identity does again and again. */
export type IdentityRow = Pick<Row, "id" | "title" | "clients" | "metric" | "reach"> & {
  readonly action: "token-by-token" | "token-validate" | "login-password";
  /** How much of the rate of its password hash alone a login is to reach; undefined where nothing is hashed. */
  readonly hashShare: number | undefined;
};

const CLIENTS = 16;

/** In the order in which they run. */
export const IDENTITY_ROWS: readonly [IdentityRow, ...IdentityRow[]] = [
  {
    id: "token-by-token",
    title: "token by token, 16 clients",
    action: "token-by-token",
    clients: CLIENTS,
    metric: "rate",
    reach: { ratio: 20 },
    hashShare: undefined,
  },
  {
    id: "token-validate",
    title: "GET /v3/auth/tokens, 16 clients",
    action: "token-validate",
    clients: CLIENTS,
    metric: "rate",
    reach: { ratio: 20 },
    hashShare: undefined,
  },
  {
    id: "login-password",
    title: "token by password, 16 clients",
    action: "login-password",
    clients: CLIENTS,
    metric: "rate",
    reach: {},
    hashShare: 0.8,
  },
];
