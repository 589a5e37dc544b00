import type { TokenContext } from "../../identity/client.ts";
import type { Exchange } from "./exchange.ts";
import { refuse } from "./swift-error.ts";

/** Roles that may do everything in their project's account, and those that may read it. */
const OPERATOR_ROLES = ["admin", "member", "swiftoperator"];
const READER_ROLES = ["reader"];
const RESELLER_ROLE = "ResellerAdmin";
const ACCOUNT_PREFIX = "AUTH_";

const hasRole = (token: TokenContext, roles: readonly string[]): boolean =>
  token.roles.some((role) => roles.includes(role));

const isReseller = (token: TokenContext): boolean =>
  token.roles.includes(RESELLER_ROLE) || (token.system && token.roles.includes("admin"));

/** May do everything with the account: its project's operators, and resellers. */
export const isOwner = (token: TokenContext | undefined, account: string): boolean =>
  token !== undefined &&
  (isReseller(token) ||
    (token.projectId !== undefined && account === ACCOUNT_PREFIX + token.projectId && hasRole(token, OPERATOR_ROLES)));

const isReader = (token: TokenContext | undefined, account: string): boolean =>
  token !== undefined &&
  token.projectId !== undefined &&
  account === ACCOUNT_PREFIX + token.projectId &&
  hasRole(token, READER_ROLES);

const deny = (token: TokenContext | undefined): Error =>
  token === undefined
    ? refuse(
        "unauthorized",
        "This server could not verify that you are authorized to access the document you requested.",
      )
    : refuse("forbidden", "Access was denied to this resource.");

/** Errors: "unauthorized" without a token, "forbidden" with one of somebody else. */
export const requireOwner = (exchange: Exchange, account: string): void => {
  if (!isOwner(exchange.token, account)) throw deny(exchange.token);
};

/** As `requireOwner`, for GET and HEAD of an account. */
export const requireAccountReader = (exchange: Exchange, account: string): void => {
  if (!isOwner(exchange.token, account) && !isReader(exchange.token, account)) throw deny(exchange.token);
};

export type Wanted = "read-object" | "list" | "write";

/** True when `admits` has to be asked, since the account's own rights do not already say yes. */
export const needsAcl = (exchange: Exchange, account: string, wanted: Wanted): boolean =>
  !isOwner(exchange.token, account) && (wanted === "write" || !isReader(exchange.token, account));

/** Asks a container's ACL. Errors: "unauthorized", "forbidden". */
export const requireAcl = (exchange: Exchange, headers: Readonly<Record<string, string>>, wanted: Wanted): void => {
  const acl = headers[wanted === "write" ? "x-container-write" : "x-container-read"];
  if (acl === undefined || !admits(acl, exchange, wanted)) throw deny(exchange.token);
};

const refererAdmits = (rules: readonly string[], referer: string | undefined): boolean => {
  let host = "";
  try {
    host = referer === undefined ? "" : new URL(referer).hostname;
  } catch {
    host = "unknown";
  }
  let isAdmitted = false;
  for (const rule of rules) {
    const isNegative = rule.startsWith("-");
    const pattern = isNegative ? rule.slice(1) : rule;
    const matches =
      pattern === "*" || (host !== "" && (host === pattern || (pattern.startsWith(".") && host.endsWith(pattern))));
    if (matches) isAdmitted = !isNegative;
  }
  return isAdmitted;
};

const admits = (acl: string, exchange: Exchange, wanted: Wanted): boolean => {
  const { token } = exchange;
  const parts = acl.split(",").map((part) => part.trim());
  const refererRules = parts.filter((part) => part.startsWith(".r:")).map((part) => part.slice(3));
  if (wanted !== "write" && refererAdmits(refererRules, exchange.request.headers.referer)) {
    if (wanted === "read-object" || parts.includes(".rlistings")) return true;
  }
  if (token === undefined) return false;
  return parts.some((part) => {
    if (part.startsWith(".")) return false;
    const colon = part.indexOf(":");
    if (colon === -1) return token.roles.includes(part);
    const project = part.slice(0, colon);
    const user = part.slice(colon + 1);
    const isProject = project === "*" || project === token.projectId || project === token.projectName;
    return isProject && (user === "*" || user === token.userId || user === token.userName);
  });
};

/** Brings an ACL header into its stored form. Errors: "bad-request" for what Swift refuses. */
export const cleanAcl = (name: string, value: string): string => {
  const cleaned: string[] = [];
  for (const raw of value.split(",")) {
    const part = raw.trim();
    if (part === "") continue;
    if (!part.startsWith(".") || part === ".rlistings") {
      if (part === ".rlistings" && name === "x-container-write")
        throw refuse("bad-request", `.rlistings is not allowed in ${name}`);
      cleaned.push(part);
      continue;
    }
    const match = /^\.(r|ref|referer|referrer)\s*:\s*(-?)\s*(.+)$/.exec(part);
    if (match === null) throw refuse("bad-request", `Unknown designator in ACL: ${JSON.stringify(part)}`);
    if (name === "x-container-write")
      throw refuse("bad-request", `Referrers not allowed in write ACL: ${JSON.stringify(part)}`);
    const host = (match[3] ?? "").replace(/^\*\./, ".");
    if (host === "." || host === "")
      throw refuse("bad-request", `No host/domain value after referrer designation in ACL: ${JSON.stringify(part)}`);
    cleaned.push(`.r:${match[2] ?? ""}${host}`);
  }
  return cleaned.join(",");
};
