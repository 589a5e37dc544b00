import { isAllowedByRules, type TokenContext } from "../../identity/client.ts";
import { type Exchange, header } from "./exchange.ts";
import { refuse } from "./swift-error.ts";
import { parseCopyPath, parseSwiftPath, type SwiftPath } from "./swift-path.ts";

/** This service in catalogs, and in the access rules of application credentials. */
const SERVICE_TYPE = "object-store";

/**
 * Rules see names as they are stored, however a client writes them, and what a copy reads and writes besides. Throws `unauthorized`.
 */
export const assertRulesAllow = (
  rules: NonNullable<TokenContext["accessRules"]>,
  exchange: Exchange,
  rawPath: string,
): void => {
  const { method } = exchange;
  const path = parseSwiftPath(rawPath);
  const touched: [method: string, path: SwiftPath][] = [[method === "COPY" ? "GET" : method, path]];
  const from = header(exchange, "x-copy-from");
  if (method === "PUT" && from !== undefined) {
    touched.push(["GET", parseCopyPath(from, header(exchange, "x-copy-from-account") ?? path.account, "X-Copy-From")]);
  }
  const to = header(exchange, "destination");
  if (method === "COPY" && to !== undefined) {
    touched.push(["PUT", parseCopyPath(to, header(exchange, "destination-account") ?? path.account, "Destination")]);
  }
  for (const [verb, { account, container, object }] of touched) {
    const names = [account, container, object].filter((name) => name !== undefined);
    if (isAllowedByRules(rules, SERVICE_TYPE, verb, `/v1/${names.join("/")}`)) continue;
    throw refuse("unauthorized", "The access rules of the application credential do not allow this request.");
  }
};
