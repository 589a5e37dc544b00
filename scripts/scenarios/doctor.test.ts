import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { Finding } from "../finding.ts";
import { TestInstallation } from "./installation.ts";

const makeCertificate = (folder: string, days: number): readonly string[] => {
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const words = [...request, "-subj", "/CN=127.0.0.1", "-days", String(days), "-keyout", key, "-out", cert];
  execFileSync("openssl", words, { stdio: "ignore" });
  return ["--tls-cert", cert, "--tls-key", key];
};

test("doctor names what is wrong, what it costs and what to do, while all runs and when nothing does", async () => {
  const work = mkdtempSync(join(tmpdir(), "ringstead-doctor-"));
  onTestFinished(() => rmSync(work, { recursive: true }));
  await using installation = new TestInstallation(["--only", "object", ...makeCertificate(work, 5)]);
  const doctor = async (): Promise<{ readonly code: number; readonly findings: readonly Finding[] }> => {
    const { code, output } = await installation.command("doctor", "--json");
    return { code, findings: (JSON.parse(output) as { findings: Finding[] }).findings };
  };
  const whatIsWrong = async (): Promise<string[]> =>
    (await doctor()).findings.filter(({ severity }) => severity === "problem").map(({ what }) => what);
  await installation.up();

  const well = await doctor();
  expect(well.code).toBe(0);
  expect(well.findings.map(({ severity, what }) => [severity, what.replace(/ at .*/, "")])).toEqual([
    ["warning", "replicas share one disk: 4 devices lie on 1 file system"],
    ["warning", `the certificate ${join(work, "cert.pem")} ends`],
  ]);
  expect((await installation.command("doctor")).output).toMatch(/^ok +identity's rows and keys are right$/m);

  chmodSync(join(installation.folder, "cluster.key"), 0o644);
  const ring = join(installation.folder, "rings", "container.ring");
  const whole = readFileSync(ring);
  writeFileSync(ring, whole.subarray(0, whole.length - 1));
  const credentialKey = join(installation.folder, "identity", "keys", "credential.key");
  const secret = readFileSync(credentialKey);
  writeFileSync(credentialKey, `${"0".repeat(64)}\n`);
  const found = await whatIsWrong();
  expect(found).toHaveLength(3);
  expect(found[0]).toMatch(/^others than its owner may read .*cluster\.key$/);
  expect(found[1]).toMatch(/^whether rings are right cannot be told: .*container\.ring/);
  expect(found[2]).toMatch(/^identity: not so: every secret at rest can be read: \d+ of \d+ cannot$/);

  chmodSync(join(installation.folder, "cluster.key"), 0o600);
  writeFileSync(ring, whole);
  writeFileSync(credentialKey, secret);
  expect(await whatIsWrong()).toEqual([]);
  await installation.command("down");
  const [down] = (await doctor()).findings;
  expect(down).toMatchObject({ severity: "problem", consequence: "no request is answered" });
  expect(down?.what).toContain(installation.folder);
});
