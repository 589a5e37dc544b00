import { execFileSync } from "node:child_process";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { selfSignedCertificate } from "./self-signed-certificate.ts";

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
const FROM_MS = Date.UTC(2026, 0, 2, 3, 4, 5);

const dates = (commonName: string, untilMs: number): X509Certificate =>
  new X509Certificate(selfSignedCertificate(privateKey, { commonName, fromMs: FROM_MS, untilMs }));

test("a certificate says whose key it is and when it holds, and is signed with that key", () => {
  const certificate = dates("cloud.example <&> é", Date.UTC(2036, 0, 2, 3, 4, 5));
  expect(certificate.verify(publicKey)).toBe(true);
  expect(certificate.checkPrivateKey(privateKey)).toBe(true);
  expect([certificate.validFromDate.getTime(), certificate.validToDate.toISOString()]).toEqual([
    FROM_MS,
    "2036-01-02T03:04:05.000Z",
  ]);
  expect(certificate.toLegacyObject().subject).toEqual({ CN: "cloud.example <&> é" });
  expect(certificate.subject).toBe(certificate.issuer);
  expect(certificate.ca).toBe(false);
  expect(certificate.serialNumber).toMatch(/^[4-7][0-9A-F]{31}$/);
  expect(dates("x", FROM_MS).serialNumber).not.toBe(certificate.serialNumber);
});

test("dates up to 2049 have two digits of the year, later ones four, as X.509 wants it", () => {
  for (const year of [2049, 2050, 2120]) {
    expect(dates("x", Date.UTC(year, 11, 31, 23, 59, 59)).validToDate.toISOString()).toBe(
      `${year}-12-31T23:59:59.000Z`,
    );
  }
});

test("OpenSSL reads it, and takes it where it is trusted", () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-certificate-"));
  try {
    const file = join(folder, "certificate.pem");
    const untilMs = Date.now() + 86_400_000;
    const commonName = "x".repeat(64);
    writeFileSync(file, selfSignedCertificate(privateKey, { commonName, fromMs: FROM_MS, untilMs }));
    const openssl = (...options: string[]): string => execFileSync("openssl", options, { stdio: "pipe" }).toString();
    const shown = openssl("x509", "-in", file, "-noout", "-subject", "-ext", "basicConstraints,keyUsage");
    expect(shown).toMatch(new RegExp(`CN = ${commonName}[\\s\\S]*CA:FALSE[\\s\\S]*Digital Signature`));
    expect(openssl("verify", "-CAfile", file, "-check_ss_sig", file)).toBe(`${file}: OK\n`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
