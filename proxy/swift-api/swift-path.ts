import { CONSTRAINTS } from "./constraints.ts";
import { refuse } from "./swift-error.ts";

/** `/v1/ACCOUNT[/CONTAINER[/OBJECT]]`, decoded. */
export type SwiftPath = {
  readonly account: string;
  readonly container: string | undefined;
  readonly object: string | undefined;
};

/** An object, named as its path names it. */
export type ObjectPath = { readonly account: string; readonly container: string; readonly object: string };

/** Bytes that are not escaped travel as latin1. */
const decodeBytes = (text: string): string => {
  if (/^[\x20-\x7e]*$/.test(text)) return text;
  return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(text, "latin1"));
};

const decodePath = (encoded: string): string => {
  let path: string;
  try {
    path = encoded.includes("%") ? decodeURIComponent(encoded) : decodeBytes(encoded);
  } catch {
    throw refuse("bad-path", "Invalid UTF8 or contains NULL");
  }
  if (path.includes("\0")) throw refuse("bad-path", "Invalid UTF8 or contains NULL");
  return path;
};

const checkLength = (name: string, limit: number, what: string): void => {
  const length = Buffer.byteLength(name);
  if (length > limit) throw refuse("bad-request", `${what} name length of ${length} longer than ${limit}`);
};

/** Errors: "unknown-path" for the store's own accounts, "bad-request" for names that are too long. */
const requireNames = (account: string, container = "", object = ""): void => {
  // What begins with a dot is the store's own.
  if (account.startsWith(".")) throw refuse("unknown-path", "The resource could not be found.");
  checkLength(account, CONSTRAINTS.max_account_name_length, "Account");
  checkLength(container, CONSTRAINTS.max_container_name_length, "Container");
  checkLength(object, CONSTRAINTS.max_object_name_length, "Object");
};

/**
 * Decodes a request path once; a slash that was escaped is a slash, as for Swift. Errors: "unknown-path", "bad-path", "bad-request" for names that
 * are too long.
 */
export const parseSwiftPath = (path: string): SwiftPath => {
  if (path === "/v1" || path === "/v1.0") throw refuse("bad-path", "Bad URL");
  if (!path.startsWith("/v1/") && !path.startsWith("/v1.0/"))
    throw refuse("unknown-path", "The resource could not be found.");
  const rest = decodePath(path.slice(path.indexOf("/", 1) + 1));
  const accountEnd = rest.indexOf("/");
  const account = accountEnd === -1 ? rest : rest.slice(0, accountEnd);
  if (account === "") throw refuse("bad-path", "Bad URL");
  if (accountEnd === -1 || accountEnd === rest.length - 1) {
    requireNames(account);
    return { account, container: undefined, object: undefined };
  }
  const inAccount = rest.slice(accountEnd + 1);
  const containerEnd = inAccount.indexOf("/");
  const container = containerEnd === -1 ? inAccount : inAccount.slice(0, containerEnd);
  if (container === "") throw refuse("bad-path", "Bad URL");
  const isContainer = containerEnd === -1 || containerEnd === inAccount.length - 1;
  const object = isContainer ? undefined : inAccount.slice(containerEnd + 1);
  requireNames(account, container, object);
  return { account, container, object };
};

/**
 * The object that a header names as `[/]CONTAINER/OBJECT`. Errors: "bad-path", "bad-request", "precondition-failed", "unknown-path".
 *
 * @param name the header, as messages write it
 */
export const parseCopyPath = (value: string, account: string, name: string): ObjectPath => {
  let decoded: string;
  try {
    decoded = decodeURIComponent(value.split("?")[0] ?? "");
  } catch {
    throw refuse("bad-path", "Invalid UTF8 or contains NULL");
  }
  const path = decoded.replace(/^\/+/, "");
  const end = path.indexOf("/");
  if (end <= 0 || end === path.length - 1 || path.includes("\0")) {
    throw refuse("precondition-failed", `${name} header must be of the form <container name>/<object name>`);
  }
  const [container, object] = [path.slice(0, end), path.slice(end + 1)];
  requireNames(account, container, object);
  return { account, container, object };
};
