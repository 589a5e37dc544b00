import type { Row } from "./rows.ts";

/** What tokens cost the object store. */
export type TokenRow = Pick<Row, "id" | "title" | "clients" | "metric" | "reach"> & {
  readonly action: "head" | "cold-check";
};

/** In the order in which they run. */
export const TOKEN_ROWS: readonly [TokenRow, ...TokenRow[]] = [
  {
    id: "head-many-tokens",
    title: "HEAD 4 KiB, 32 clients",
    action: "head",
    clients: 32,
    metric: "rate",
    reach: { ratio: 0.9 },
  },
  {
    id: "cold-token-check",
    title: "tokens seen for the first time, for each core",
    action: "cold-check",
    clients: 1,
    metric: "rate",
    reach: { requestsPerSecond: 5_000 },
  },
];
