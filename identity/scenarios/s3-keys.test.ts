import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { runtimePaths } from "../../common/runtime-paths.ts";
import { cleanEnvironment, TestInstallation } from "../../scripts/scenarios/installation.ts";
import { runCommand } from "../../scripts/scenarios/run-command.ts";
import { textAt } from "../test-client.ts";
import { adminSession } from "./cloud-session.ts";

const SOON = { timeout: 20_000, interval: 100 };

const installation = new TestInstallation();

const CODE = /\b(?:NotImplemented|SignatureDoesNotMatch|InvalidAccessKeyId|ServiceUnavailable)\b/;

type Key = { readonly access: string; readonly secret: string };

/** What rclone is told when it lists the buckets: the code of the error. */
const answerTo = async ({ access, secret }: Key): Promise<string> => {
  const { origin } = new URL(installation.ready().endpoints["object"] ?? "");
  const remote = `:s3,provider=Other,access_key_id=${access},secret_access_key=${secret},endpoint='${origin}':`;
  const words = ["lsd", "--retries", "1", "--low-level-retries", "1", "--contimeout", "5s", remote];
  const { output } = await runCommand("/usr/bin/rclone", words, { env: cleanEnvironment() });
  return CODE.exec(output)?.[0] ?? output;
};

const pidOf = (role: string): number => {
  const found = installation.ready().processes.find((one) => one.role.split(",").includes(role));
  if (found === undefined) throw new Error(`no ${role}`);
  return found.pid;
};

beforeAll(() => installation.up());
afterAll(() => installation[Symbol.asyncDispose]());

it("a client that signs with an S3 key is known, and one that does not is refused in words that it knows", async () => {
  const { accessKey, secretKey } = installation.ready().s3;
  expect(await answerTo({ access: accessKey, secret: secretKey })).toBe("NotImplemented");
  expect(await answerTo({ access: accessKey, secret: "another" })).toBe("SignatureDoesNotMatch");
  expect(await answerTo({ access: "f".repeat(32), secret: secretKey })).toBe("InvalidAccessKeyId");
});

it("a key that is deleted is refused soon", async () => {
  const { call, token } = await adminSession(installation.folder);
  const own = await call("GET", "/v3/auth/tokens", { token, subject: token });
  const [userId, projectId] = [textAt(own, "token.user.id"), textAt(own, "token.project.id")];
  const path = `/v3/users/${userId}/credentials/OS-EC2`;
  const made = await call("POST", path, { token, body: { tenant_id: projectId } });
  const key = { access: textAt(made, "credential.access"), secret: textAt(made, "credential.secret") };
  expect(await answerTo(key)).toBe("NotImplemented");
  expect((await call("DELETE", `${path}/${key.access}`, { token })).status).toBe(204);
  await expect.poll(() => answerTo(key), SOON).toBe("InvalidAccessKeyId");
});

it("without the identity service a key that was seen goes on, in a new proxy too, and for an unknown one it is said to come again", async () => {
  const { accessKey, secretKey } = installation.ready().s3;
  const known = { access: accessKey, secret: secretKey };
  const kept = join(runtimePaths(installation.folder).identityDir, "access-keys");
  await expect.poll(() => existsSync(kept), SOON).toBe(true);
  const pid = pidOf("identity");
  process.kill(pid, "SIGSTOP");
  try {
    expect(await answerTo(known)).toBe("NotImplemented");
    expect(await answerTo({ access: "0".repeat(32), secret: secretKey })).toBe("ServiceUnavailable");
    const proxy = pidOf("proxy");
    process.kill(proxy, "SIGKILL");
    await expect.poll(() => pidOf("proxy"), SOON).not.toBe(proxy);
    await expect.poll(() => answerTo(known), SOON).toBe("NotImplemented");
  } finally {
    process.kill(pid, "SIGCONT");
  }
});
