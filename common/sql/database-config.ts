import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { type Static, Type } from "typebox";
import { codeOf, messageOf, RingsteadError } from "../errors.ts";

/** Connections that one process holds at most where `pool_size` says nothing: PostgreSQL allows 100 in all by default. */
const POOL_SIZE = 10;
const POSTGRES_PORT = 5432;
/** More than any secret; a wrong path must not read a disk image into memory. */
const PASSWORD_FILE_MAX_BYTES = 4096;

/** The table `[database]` of cluster.toml: a PostgreSQL server that all nodes share. Without it each service has a SQLite file. */
export const databaseSchema = Type.Object(
  {
    /**
     * `postgresql://USER@HOST[:PORT]/DATABASE`; for a Unix socket the folder it is in, as `postgresql:///DATABASE?host=FOLDER&user=USER`.
     * The user makes a schema for each service, so it needs CREATE on the database, whose encoding must be UTF8.
     * The parts are checked by `databaseServerOf`, since the messages of a schema quote the value, and there may be a password in it.
     */
    url: Type.String(),
    /** A file with the password (mode 0600), read at each new connection; takes the place of one in `url`. */
    password_file: Type.Optional(Type.String({ minLength: 1 })),
    /** Connections of each process, 10 by default: one is held for the length of a transaction. */
    pool_size: Type.Optional(Type.Integer({ minimum: 1, maximum: 500 })),
    /** PEM file of the authority that signed the server's certificate: the connection is encrypted, and the server's name is checked. */
    tls_ca: Type.Optional(Type.String({ minLength: 1 })),
  },
  { additionalProperties: false },
);

/** Where the PostgreSQL server is. */
export type DatabaseServer = {
  /** Name, address, or the absolute path of the folder of its Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly database: string;
  readonly poolSize: number;
  readonly tlsCa?: string;
  /** The secret, fetched anew at each connection; a function, so that no log prints it. Throws RingsteadError `invalid-config`. */
  readonly password: () => string | undefined;
};

const refuse = (message: string): never => {
  throw new RingsteadError("invalid-config", message);
};

const readPassword = (path: string): string => {
  let secret = "";
  try {
    const { mode, size } = statSync(path);
    if ((mode & 0o077) !== 0) refuse(`database.password_file: others can read ${path}; run: chmod 600 ${path}`);
    if (size > PASSWORD_FILE_MAX_BYTES)
      refuse(`database.password_file: ${path} has more than ${PASSWORD_FILE_MAX_BYTES} bytes`);
    secret = readFileSync(path, "utf8").replace(/\r?\n$/, "");
  } catch (thrown) {
    if (thrown instanceof RingsteadError) throw thrown;
    refuse(`database.password_file: ${path} cannot be read (${codeOf(thrown) ?? messageOf(thrown)})`);
  }
  return secret === "" ? refuse(`database.password_file: ${path} is empty`) : secret;
};

const FORM =
  "postgresql://USER@HOST[:PORT]/DATABASE, or postgresql:///DATABASE?host=FOLDER&user=USER for a Unix socket";
const URL_KEYS = new Set(["host", "user", "port"]);

const decode = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    return refuse("database.url: a % that begins no escape");
  }
};

const portOf = (text: string): number => {
  const port = Number(text === "" ? POSTGRES_PORT : text);
  return Number.isInteger(port) && port > 0 && port < 65_536
    ? port
    : refuse("database.url: the port must be 1 to 65535");
};

/** The server that a validated table names. No message has a part of the URL in it. Throws RingsteadError `invalid-config`. */
export const databaseServerOf = (table: Static<typeof databaseSchema>): DatabaseServer => {
  const url = URL.canParse(table.url) ? new URL(table.url) : refuse(`database.url must be ${FORM}`);
  if (url.protocol !== "postgresql:" && url.protocol !== "postgres:") refuse(`database.url must be ${FORM}`);
  const given = (key: string): string => url.searchParams.get(key) ?? "";
  for (const key of url.searchParams.keys()) {
    if (!URL_KEYS.has(key))
      refuse("database.url: after ? only host, user and port may be given; TLS has the key tls_ca");
  }
  const host = decode(url.hostname).replace(/^\[(.*)\]$/, "$1") || given("host");
  const user = decode(url.username) || given("user");
  const database = decode(url.pathname.replace(/^\//, ""));
  if (host === "") refuse(`database.url names no host: it must be ${FORM}`);
  if (user === "") refuse(`database.url names no user: it must be ${FORM}`);
  if (database === "" || database.includes("/")) refuse(`database.url names no database: it must be ${FORM}`);
  if (host.startsWith("/") && table.tls_ca !== undefined) refuse("database.tls_ca: a Unix socket has no TLS");
  const { password_file: passwordFile, tls_ca: tlsCa } = table;
  const inUrl = decode(url.password);
  if (passwordFile !== undefined && inUrl !== "")
    refuse("database: there is a password in url and a password_file; keep one");
  const password = (): string | undefined => {
    if (passwordFile !== undefined) return readPassword(resolve(passwordFile));
    return inUrl === "" ? undefined : inUrl;
  };
  return Object.freeze({
    host,
    port: portOf(url.port || given("port")),
    user,
    database,
    poolSize: table.pool_size ?? POOL_SIZE,
    ...(tlsCa === undefined ? {} : { tlsCa: resolve(tlsCa) }),
    password,
  });
};
