type MixedRequest = "GET" | "PUT" | "DELETE" | "list";

/** How many of 100 requests are what: reads lead, as in stores of backups, images and web content. */
const SHARES: Readonly<Record<MixedRequest, number>> = { GET: 80, PUT: 15, DELETE: 3, list: 2 };
const LENGTH = 100;

/** Each place goes to the kind that is furthest behind its share, so that every stretch of the pattern holds about the shares. */
const patternOf = (): MixedRequest[] => {
  const kinds = Object.keys(SHARES) as MixedRequest[];
  const given: Record<MixedRequest, number> = { GET: 0, PUT: 0, DELETE: 0, list: 0 };
  return Array.from({ length: LENGTH }, (_, place) => {
    const behind = (kind: MixedRequest): number => (SHARES[kind] * (place + 1)) / LENGTH - given[kind];
    const next = kinds.reduce((furthest, kind) => (behind(kind) > behind(furthest) ? kind : furthest));
    given[next] += 1;
    return next;
  });
};

/** The order of the requests of a mixed load, which begins again at its end. */
export const MIXED_PATTERN: readonly MixedRequest[] = patternOf();
