import { createPrivateKey, generateKeyPair, type KeyObject, randomBytes, X509Certificate } from "node:crypto";
import { rmSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Clock } from "../../common/clock.ts";
import { codeOf, RingsteadError } from "../../common/errors.ts";
import { replaceFile } from "../../common/replace-file.ts";
import { identityError } from "../core/identity-error.ts";
import type { SamlSigner } from "../saml-signature.ts";
import { selfSignedCertificate } from "../self-signed-certificate.ts";

/** As long as it takes nobody has broken one of these, as far as NIST says (SP 800-57, beyond 2030). */
const MODULUS_BITS = 3_072;
const MODULUS_BITS_MIN = 2_048;
const YEAR_MS = 365 * 86_400_000;
/** Receivers trust the key, not the date; but some look at it. */
const LIFETIME_MS = 10 * YEAR_MS;
const EARLIER_MS = 86_400_000;
const KEY_FILE = /^(\d{13})-[0-9a-f]{8}\.saml\.pem$/;
const PRIVATE_KEY = /-----BEGIN (?:RSA )?PRIVATE KEY-----[\s\S]+?-----END (?:RSA )?PRIVATE KEY-----/;
const CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/;

type SamlKey = SamlSigner & { readonly certificate: X509Certificate };

export type SamlKeyRotation = { readonly fingerprint: string; readonly signsAtMs: number };

/** The keys that assertions are, were lately, or will be signed with. */
export type SamlKeys = {
  /** The key that signs now. */
  current(): Promise<SamlKey>;
  /** Those that receivers should know, the current one first. */
  published(): Promise<readonly SamlKey[]>;
  /**
   * Makes a key, which stands in the metadata at once and signs once receivers had the time to read that; `atOnce`: it signs now, and all others
   * go, as when one was stolen. On the disk when it resolves. Throws `conflict` where the operator's own key is configured.
   */
  rotate(atOnce: boolean): Promise<SamlKeyRotation>;
  /** Removes keys that no assertion which still holds is signed with. How many went. */
  retire(): number;
};

export type SamlKeysOptions = {
  readonly keysDir: string;
  readonly clock: Clock;
  /** The operator's own files, PEM. */
  readonly configured: { readonly certfile: string; readonly keyfile: string } | undefined;
  /** At most 64 characters. */
  readonly commonName: string;
  readonly announcementMs: number;
  readonly assertionMs: number;
};

const refuse = (path: string, why: string): never => {
  throw new RingsteadError("bad-key-file", `${path} ${why}`, { path });
};

/** The key and the certificate that `keyText` and `certificateText` hold. Throws RingsteadError `bad-key-file`, which says nothing of what is in the file. */
const keyOf = (keyText: string, certificateText: string, path: string): SamlKey => {
  const [privateKeyPem] = PRIVATE_KEY.exec(keyText) ?? [];
  const [certificatePem] = CERTIFICATE.exec(certificateText) ?? [];
  if (privateKeyPem === undefined) return refuse(path, "holds no private key as PEM, or an encrypted one");
  if (certificatePem === undefined) return refuse(path, "has no certificate as PEM");
  let key: KeyObject;
  let certificate: X509Certificate;
  try {
    key = createPrivateKey(privateKeyPem);
    certificate = new X509Certificate(certificatePem);
  } catch {
    return refuse(path, "or its certificate cannot be read");
  }
  if (key.asymmetricKeyType !== "rsa") refuse(path, "is no RSA key, the only kind that all service providers take");
  if ((key.asymmetricKeyDetails?.modulusLength ?? 0) < MODULUS_BITS_MIN) refuse(path, "has less than 2,048 bits");
  if (!certificate.checkPrivateKey(key)) refuse(path, "is not the key of its certificate");
  return { privateKey: key, certificatePem, certificate };
};

/** Its files are read once. Throws RingsteadError `bad-key-file`; what the file system says. */
const configuredKeys = async ({ certfile, keyfile }: NonNullable<SamlKeysOptions["configured"]>): Promise<SamlKeys> => {
  const key = keyOf(await readFile(keyfile, "utf8"), await readFile(certfile, "utf8"), keyfile);
  return {
    current: async () => key,
    published: async () => [key],
    rotate: async () => {
      throw identityError("conflict", `[identity.saml] names ${keyfile}: replace that file, then restart.`);
    },
    retire: () => 0,
  };
};

type StoredKey = SamlKey & { readonly file: string; readonly createdAtMs: number };

const stored = (file: string, text: string, path: string): StoredKey => ({
  ...keyOf(text, text, path),
  file,
  createdAtMs: Number(KEY_FILE.exec(file)?.[1]),
});

/** What `keysDir` holds of them, the oldest first. Throws RingsteadError `bad-key-file`. */
export const readSamlKeys = async (keysDir: string): Promise<StoredKey[]> => {
  const names = (await readdir(keysDir)).filter((name) => KEY_FILE.test(name)).toSorted();
  return Promise.all(
    names.map(async (name) => stored(name, await readFile(join(keysDir, name), "utf8"), join(keysDir, name))),
  );
};

const makeKey = async ({ keysDir, commonName }: SamlKeysOptions, createdAtMs: number): Promise<StoredKey> => {
  const { privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: MODULUS_BITS });
  const dates = { fromMs: createdAtMs - EARLIER_MS, untilMs: createdAtMs + LIFETIME_MS };
  const certificate = selfSignedCertificate(privateKey, { commonName, ...dates });
  const text = `${privateKey.export({ type: "pkcs8", format: "pem" }).toString()}${certificate}`;
  const file = `${String(createdAtMs).padStart(13, "0")}-${randomBytes(4).toString("hex")}.saml.pem`;
  replaceFile(join(keysDir, file), text, 0o600);
  return stored(file, text, join(keysDir, file));
};

/** Keys of this installation, the first one made when it is asked for: few ever ask, and it takes a second of CPU. */
const ownKeys = async (options: SamlKeysOptions): Promise<SamlKeys> => {
  const { keysDir, clock, announcementMs, assertionMs } = options;
  await mkdir(keysDir, { recursive: true, mode: 0o700 });
  let keys = await readSamlKeys(keysDir);
  let making: Promise<StoredKey> | undefined;

  /** One at a time, whoever asks. */
  const make = (): Promise<StoredKey> =>
    (making ??= (async () => {
      // Names sort in the order in which keys were made, also where the clock was set back.
      const made = await makeKey(options, Math.max(clock.nowMs(), (keys.at(-1)?.createdAtMs ?? 0) + 1));
      keys = [...keys, made];
      return made;
    })().finally(() => {
      making = undefined;
    }));

  const current = async (): Promise<StoredKey> => {
    const readyMs = clock.nowMs() - announcementMs;
    return keys.findLast(({ createdAtMs }) => createdAtMs <= readyMs) ?? keys[0] ?? (await make());
  };

  const remove = (isGone: (key: StoredKey, index: number) => boolean): number => {
    const gone = keys.filter(isGone);
    keys = keys.filter((key) => !gone.includes(key));
    for (const { file } of gone) rmSync(join(keysDir, file));
    return gone.length;
  };

  return {
    current,
    published: async () => {
      const signing = await current();
      return [signing, ...keys.filter((key) => key !== signing)];
    },
    rotate: async (atOnce) => {
      // One that has just been made for somebody else is no answer to a theft.
      await making;
      const isFirst = keys.length === 0;
      const made = await make();
      if (atOnce) remove((key) => key !== made);
      const signsAtMs = atOnce || isFirst ? made.createdAtMs : made.createdAtMs + announcementMs;
      return { fingerprint: made.certificate.fingerprint256, signsAtMs };
    },
    retire: () => {
      const nowMs = clock.nowMs();
      return remove((_key, index) => {
        const successor = keys[index + 1];
        return successor !== undefined && successor.createdAtMs + announcementMs + assertionMs < nowMs;
      });
    },
  };
};

/** What keeps the operator's or an own file from being read, rather than this program from working. */
const UNREADABLE = new Set(["bad-key-file", "ENOENT", "EACCES", "EISDIR"]);

/** Every use of keys that cannot be read says why, and makes no others in their place: receivers know the old ones. */
const unreadableKeys = (error: unknown): SamlKeys => ({
  current: () => Promise.reject(error),
  published: () => Promise.reject(error),
  rotate: () => Promise.reject(error),
  retire: () => 0,
});

/**
 * Reads the keys. Files that cannot be read do not keep anybody from logging in: `onUnreadable` is told of them, and what needs the keys rejects with
 * RingsteadError `bad-key-file`, or what the file system said.
 */
export const openSamlKeys = async (
  options: SamlKeysOptions,
  onUnreadable: (error: unknown) => void,
): Promise<SamlKeys> => {
  try {
    return options.configured === undefined ? await ownKeys(options) : await configuredKeys(options.configured);
  } catch (thrown) {
    if (!UNREADABLE.has(codeOf(thrown) ?? "")) throw thrown;
    onUnreadable(thrown);
    return unreadableKeys(thrown);
  }
};
