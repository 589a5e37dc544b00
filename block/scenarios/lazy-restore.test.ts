import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { adminSession } from "../../identity/scenarios/cloud-session.ts";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";

const installation = new TestInstallation(["--only", "object,block"]);
const run = promisify(execFile);
const MIB = 1024 * 1024;
const OUTPUT_LIMIT_BYTES = 2 * 1024 * MIB;
const LIMIT_MS = 180_000;

type Thing = Readonly<Record<string, unknown>>;

let session: ReturnType<typeof adminSession> | undefined;
const ask = async (method: string, path: string, body?: object): Promise<Thing> => {
  session ??= adminSession(installation.folder);
  const { token } = await session;
  const answer = await fetch(`${String(installation.ready().endpoints["block"])}${path}`, {
    method,
    headers: { "x-auth-token": token, "openstack-api-version": "volume 3.56", "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text === "" ? {} : (JSON.parse(text) as Thing);
};

const statusOf = async (path: string, name: string): Promise<unknown> =>
  ((await ask("GET", path))[name] as Thing)["status"];

const until = async (path: string, name: string, status: string): Promise<void> => {
  let last: unknown;
  for (const deadline = performance.now() + LIMIT_MS; performance.now() < deadline; await sleep(100)) {
    last = await statusOf(path, name);
    if (last === status) return;
    if (String(last).startsWith("error")) break;
  }
  throw new Error(`${path} is ${String(last)}, not ${status}`);
};

const opened = async <Result>(id: string, action: (uri: string) => Promise<Result>): Promise<Result> => {
  const { code, output } = await installation.command("volume", "export", id, "--protocol", "nbd");
  expect(code).toBe(0);
  try {
    return await action(output.trim());
  } finally {
    await installation.command("volume", "unexport", id);
  }
};

const digestOf = (id: string): Promise<string> =>
  opened(id, async (uri) => {
    const command = 'set -o pipefail; nbdcopy "$0" - | sha256sum';
    return (await run("bash", ["-c", command, uri], { maxBuffer: OUTPUT_LIMIT_BYTES })).stdout.slice(0, 64);
  });

const crash = async (): Promise<void> => {
  await installation.crash();
  session = undefined;
};

beforeAll(async () => {
  await installation.up();
  await installation.command("down");
  appendFileSync(join(installation.folder, "cluster.toml"), "\n[block]\nlazy_restore = true\n");
  await installation.up();
});
afterAll(() => installation[Symbol.asyncDispose]());

it("a volume is used while it is filled from its backup, also through the death of everything, and reads as it did", async () => {
  const { volume } = (await ask("POST", "/volumes", { volume: { size: 2 } })) as { volume: { id: string } };
  await until(`/volumes/${volume.id}`, "volume", "available");
  await opened(volume.id, async (uri) => {
    await run("bash", ["-c", 'set -o pipefail; head -c 600M /dev/urandom | nbdcopy - "$0"', uri]);
  });
  const whole = await digestOf(volume.id);
  const { backup } = (await ask("POST", "/backups", { backup: { volume_id: volume.id } })) as { backup: Thing };
  const backupPath = `/backups/${String(backup["id"])}`;
  await until(backupPath, "backup", "available");

  const { restore } = (await ask("POST", `${backupPath}/restore`, { restore: {} })) as { restore: Thing };
  const copyId = String(restore["volume_id"]);
  await until(`/volumes/${copyId}`, "volume", "available");
  expect(await statusOf(backupPath, "backup")).toBe("restoring");
  // Used at once: from its end, where nothing has been filled yet.
  const folder = mkdtempSync(join(tmpdir(), "rs-lazy-"));
  try {
    const bytes = randomBytes(MIB);
    writeFileSync(join(folder, "bytes"), bytes);
    const [from, file] = [1500 * MIB, join(folder, "bytes")];
    for (const id of [copyId, volume.id])
      await opened(id, async (uri) => {
        await run("qemu-io", ["-f", "raw", "-c", `write -q -s ${file} ${from} ${MIB}`, "-c", "flush", uri]);
      });
  } finally {
    rmSync(folder, { recursive: true });
  }
  await crash();
  expect(await statusOf(`/volumes/${copyId}`, "volume")).toBe("available");
  await until(backupPath, "backup", "available");
  await ask("DELETE", backupPath);
  const changed = await digestOf(volume.id);
  expect(changed).not.toBe(whole);
  expect(await digestOf(copyId)).toBe(changed);
});
