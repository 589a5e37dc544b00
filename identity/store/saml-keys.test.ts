import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { selfSignedCertificate } from "../self-signed-certificate.ts";
import { openSamlKeys, type SamlKeys, type SamlKeysOptions } from "./saml-keys.ts";

const ANNOUNCEMENT_MS = 7 * 86_400_000;
const ASSERTION_MS = 3_600_000;

let folder: string;
let nowMs: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-saml-keys-"));
  nowMs = Date.now();
  unreadable = [];
});

afterEach(() => rmSync(folder, { recursive: true }));

let unreadable: unknown[];

const open = (change: Partial<SamlKeysOptions> = {}): Promise<SamlKeys> =>
  openSamlKeys(
    {
      keysDir: join(folder, "keys"),
      clock: { nowMs: () => nowMs },
      configured: undefined,
      commonName: "cloud.example",
      announcementMs: ANNOUNCEMENT_MS,
      assertionMs: ASSERTION_MS,
      ...change,
    },
    (error) => void unreadable.push(error),
  );
/** What was told of, and what every use of the keys says. */
const refusalOf = async (change: Partial<SamlKeysOptions> = {}): Promise<Error> => {
  unreadable = [];
  const keys = await open(change);
  const [told] = unreadable;
  if (!(told instanceof Error)) throw new Error("nothing was told");
  for (const use of [keys.current(), keys.published(), keys.rotate(true)]) await expect(use).rejects.toBe(told);
  expect(keys.retire()).toBe(0);
  return told;
};
const files = (): string[] => readdirSync(join(folder, "keys")).toSorted();
const fingerprints = async (keys: SamlKeys): Promise<string[]> =>
  (await keys.published()).map(({ certificate }) => certificate.fingerprint256);
const signing = async (keys: SamlKeys): Promise<string> => (await keys.current()).certificate.fingerprint256;

test("the first key is made once, when it is asked for, is for its owner only, and is there after a restart", async () => {
  const keys = await open();
  expect(files()).toEqual([]);
  const [one, two] = await Promise.all([signing(keys), signing(keys), keys.published()]);
  expect(one).toBe(two);
  expect(files()).toHaveLength(1);
  expect(statSync(join(folder, "keys", files()[0] ?? "")).mode & 0o777).toBe(0o600);
  expect(await fingerprints(await open())).toEqual([one]);
});

test("a new key is published at once, signs after the announcement, and the old one goes when no assertion of it holds", async () => {
  const keys = await open();
  const old = await signing(keys);
  nowMs += 1_000;
  const { fingerprint, signsAtMs } = await keys.rotate(false);
  expect(signsAtMs).toBe(nowMs + ANNOUNCEMENT_MS);
  expect(await fingerprints(keys)).toEqual([old, fingerprint]);
  nowMs = signsAtMs - 1;
  expect(await signing(keys)).toBe(old);
  nowMs = signsAtMs;
  expect(await fingerprints(keys)).toEqual([fingerprint, old]);
  expect(await fingerprints(await open())).toEqual([fingerprint, old]);
  nowMs = signsAtMs + ASSERTION_MS;
  expect(keys.retire()).toBe(0);
  nowMs += 1;
  expect(keys.retire()).toBe(1);
  expect(await fingerprints(keys)).toEqual([fingerprint]);
  expect(files()).toHaveLength(1);
});

test("a key that replaces a stolen one signs at once, and nothing is left of any other", async () => {
  const keys = await open();
  await keys.rotate(false);
  await keys.rotate(false);
  const { fingerprint, signsAtMs } = await keys.rotate(true);
  expect(signsAtMs).toBeLessThanOrEqual(nowMs + 3);
  expect(await fingerprints(keys)).toEqual([fingerprint]);
  expect(await fingerprints(await open())).toEqual([fingerprint]);
});

test("a first key that a rotation makes signs at once: there is nobody who knows another", async () => {
  const keys = await open();
  const { fingerprint, signsAtMs } = await keys.rotate(false);
  expect(signsAtMs).toBe(nowMs);
  expect(await signing(keys)).toBe(fingerprint);
});

test("a damaged key file is told of and not replaced, and nothing of what is in it is told", async () => {
  await signing(await open());
  const path = join(folder, "keys", files()[0] ?? "");
  const text = readFileSync(path, "utf8");
  const damaged = text.replace(/\n\w{20}/, "\nAAAAAAAAAAAAAAAAAAAA");
  for (const content of ["", text.slice(0, 300), damaged, text.replace(/-----BEGIN CERT[\s\S]*/, "")]) {
    writeFileSync(path, content);
    const refusal = await refusalOf();
    expect(refusal).toMatchObject({ code: "bad-key-file", fields: { path } });
    expect(refusal.message).not.toContain(text.slice(40, 60));
  }
  expect(files()).toHaveLength(1);
});

test("the operator's own key is used as it is; one that is of another kind, too short or another's certificate is refused", async () => {
  const certfile = join(folder, "cert.pem");
  const keyfile = join(folder, "key.pem");
  const rsa = (modulusLength: number) => generateKeyPairSync("rsa", { modulusLength }).privateKey;
  const put = (name: string, key: ReturnType<typeof rsa>): void =>
    writeFileSync(name, key.export({ type: "pkcs8", format: "pem" }));
  const certify = (key: ReturnType<typeof rsa>): void => {
    const dates = { commonName: "own", fromMs: nowMs, untilMs: nowMs + 1e9 };
    writeFileSync(certfile, selfSignedCertificate(key, dates));
  };
  const own = rsa(2_048);
  put(keyfile, own);
  certify(own);
  const keys = await open({ configured: { certfile, keyfile } });
  expect((await keys.current()).certificate.subject).toBe("CN=own");
  expect(unreadable).toEqual([]);
  expect(keys.retire()).toBe(0);
  await expect(keys.rotate(true)).rejects.toMatchObject({ code: "conflict" });
  await expect(keys.rotate(true)).rejects.toThrow(keyfile);

  certify(rsa(2_048));
  expect((await refusalOf({ configured: { certfile, keyfile } })).message).toContain(
    "is not the key of its certificate",
  );
  const short = rsa(1_024);
  put(keyfile, short);
  certify(short);
  expect((await refusalOf({ configured: { certfile, keyfile } })).message).toContain("less than 2,048 bits");
  put(keyfile, generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey);
  expect((await refusalOf({ configured: { certfile, keyfile } })).message).toContain("is no RSA key");
  rmSync(keyfile);
  expect(await refusalOf({ configured: { certfile, keyfile } })).toMatchObject({ code: "ENOENT" });
});
