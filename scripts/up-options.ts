import { isAbsolute, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { type ClusterFile, SERVICES } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";

/** The checkout that this program runs from. */
export const CHECKOUT = resolve(import.meta.dirname, "..");

/** What `ringstead up` was asked for. */
export type UpOptions = {
  readonly dataDir: string;
  readonly detach: boolean;
  /** Chosen services of this run; not remembered. */
  readonly only: ClusterFile["only"];
  readonly adminPassword: string | undefined;
  /** Options that become keys of cluster.toml. */
  readonly keys: Partial<ClusterFile>;
};

const usage = (message: string): never => {
  throw new RingsteadError("usage", message);
};

/** parseArgs with words of ours: one sentence, no stack. Throws RingsteadError `usage`. */
export const parseOptions = <const Options extends NonNullable<Parameters<typeof parseArgs>[0]>["options"]>(
  argv: readonly string[],
  options: Options,
  allowPositionals = false,
) => {
  try {
    return parseArgs({ args: [...argv], options, allowPositionals, strict: true });
  } catch (thrown) {
    const [first = ""] = messageOf(thrown).split("\n");
    return usage(`${first.replace(/\. To specify a positional.*$/, "")} (see: ringstead help)`);
  }
};

/** `--data DIR`, or `.ringstead` in the checkout. */
export const dataDirOf = (given: string | undefined): string =>
  given === undefined ? join(CHECKOUT, ".ringstead") : resolve(given);

const integer = (name: string, text: string | undefined): number | undefined => {
  if (text === undefined) return undefined;
  if (!/^\d{1,9}$/.test(text)) usage(`--${name} takes a whole number, not "${text}"`);
  return Number(text);
};

const serviceList = (text: string | undefined): ClusterFile["only"] => {
  if (text === undefined) return undefined;
  const names = text.split(",").map((name) => name.trim());
  return names.map(
    (name) =>
      SERVICES.find((service) => service === name) ??
      usage(`--only takes a list of ${SERVICES.join(",")}; there is no service "${name}"`),
  );
};

const definedOnly = (keys: { [Key in keyof ClusterFile]: ClusterFile[Key] | undefined }): Partial<ClusterFile> =>
  Object.fromEntries(Object.entries(keys).filter(([, value]) => value !== undefined));

/** The options of `ringstead up`. Throws RingsteadError `usage`. */
export const parseUpOptions = (argv: readonly string[]): UpOptions => {
  const { values } = parseOptions(argv, {
    data: { type: "string" },
    detach: { type: "boolean" },
    // `scripts/start` has acted on it.
    install: { type: "boolean" },
    bind: { type: "string" },
    "public-url": { type: "string" },
    "port-offset": { type: "string" },
    devices: { type: "string" },
    device: { type: "string", multiple: true },
    replicas: { type: "string" },
    only: { type: "string" },
    "admin-password": { type: "string" },
    "tls-cert": { type: "string" },
    "tls-key": { type: "string" },
  });
  if (values.devices !== undefined && values.device !== undefined) usage("--devices and --device exclude each other");
  if (values["admin-password"] === "") usage("--admin-password must not be empty");
  const pathOf = (path: string | undefined): string | undefined =>
    path === undefined || isAbsolute(path) ? path : resolve(path);
  return {
    dataDir: dataDirOf(values.data),
    detach: values.detach ?? false,
    only: serviceList(values.only),
    adminPassword: values["admin-password"],
    keys: definedOnly({
      bind: values.bind,
      public_url: values["public-url"],
      port_offset: integer("port-offset", values["port-offset"]),
      devices: integer("devices", values.devices),
      device: values.device?.map((path) => resolve(path)),
      replicas: integer("replicas", values.replicas),
      tls_cert: pathOf(values["tls-cert"]),
      tls_key: pathOf(values["tls-key"]),
    }),
  };
};
