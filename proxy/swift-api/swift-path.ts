import { CONSTRAINTS } from "./constraints.ts";
import { refuse } from "./swift-error.ts";

/** `/v1/ACCOUNT[/CONTAINER[/OBJECT]]`, decoded. */
export type SwiftPath = {
  readonly account: string;
  readonly container: string | undefined;
  readonly object: string | undefined;
};

const decodeName = (encoded: string, what: string): string => {
  if (!encoded.includes("%")) {
    if (/^[\x20-\x7e]*$/.test(encoded)) return encoded;
    const decoded = new TextDecoder("utf-8", { fatal: true });
    try {
      return decoded.decode(Buffer.from(encoded, "latin1"));
    } catch {
      throw refuse("bad-path", "Invalid UTF8 or contains NULL");
    }
  }
  let name: string;
  try {
    name = decodeURIComponent(encoded);
  } catch {
    throw refuse("bad-path", "Invalid UTF8 or contains NULL", { what });
  }
  if (name.includes("\0")) throw refuse("bad-path", "Invalid UTF8 or contains NULL", { what });
  return name;
};

const checkLength = (name: string, limit: number, what: string): void => {
  const length = Buffer.byteLength(name);
  if (length > limit) throw refuse("bad-request", `${what} name length of ${length} longer than ${limit}`);
};

/** Decodes a request path once. Errors: "unknown-path", "bad-path", "bad-request" for names that are too long. */
export const parseSwiftPath = (path: string): SwiftPath => {
  if (!path.startsWith("/v1/") && !path.startsWith("/v1.0/"))
    throw refuse("unknown-path", "The resource could not be found.");
  const rest = path.slice(path.indexOf("/", 1) + 1);
  const accountEnd = rest.indexOf("/");
  const account = decodeName(accountEnd === -1 ? rest : rest.slice(0, accountEnd), "account");
  // What begins with a dot is the store's own.
  if (account === "" || account.startsWith(".")) throw refuse("unknown-path", "The resource could not be found.");
  checkLength(account, CONSTRAINTS.max_account_name_length, "Account");
  if (account.includes("/")) throw refuse("bad-path", "Account name cannot contain slashes");
  if (accountEnd === -1 || accountEnd === rest.length - 1) return { account, container: undefined, object: undefined };
  const inAccount = rest.slice(accountEnd + 1);
  const containerEnd = inAccount.indexOf("/");
  const container = decodeName(containerEnd === -1 ? inAccount : inAccount.slice(0, containerEnd), "container");
  if (container === "") throw refuse("bad-path", "Container name cannot be empty");
  if (container.includes("/")) throw refuse("bad-path", "Container name cannot contain slashes");
  checkLength(container, CONSTRAINTS.max_container_name_length, "Container");
  if (containerEnd === -1 || containerEnd === inAccount.length - 1) return { account, container, object: undefined };
  const object = decodeName(inAccount.slice(containerEnd + 1), "object");
  checkLength(object, CONSTRAINTS.max_object_name_length, "Object");
  return { account, container, object };
};
