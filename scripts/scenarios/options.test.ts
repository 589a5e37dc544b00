import { spawn } from "node:child_process";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { METRICS_PORT, PUBLIC_PORTS } from "../../common/config.ts";
import { startTimeOf } from "../../common/process-identity.ts";
import type { ReadyFile } from "../ready-file.ts";
import type { SupervisorState } from "../supervisor.ts";
import { CHECKOUT } from "../up-options.ts";
import { freePortOffset } from "../../common/free-ports.ts";
import { cleanEnvironment } from "./installation.ts";
import { type CommandRun, runCommand } from "./run-command.ts";

const folder = mkdtempSync(join(tmpdir(), "ringstead-options-"));
const data = join(folder, "data");
const certificate = join(folder, "cert.pem");
const key = join(folder, "key.pem");
let offset = 0;

const start = (...options: string[]): Promise<CommandRun> =>
  runCommand(join(CHECKOUT, "scripts/start"), ["--data", data, "--detach", ...options]);
const ringstead = (...words: string[]): Promise<CommandRun> =>
  runCommand(join(CHECKOUT, "scripts/ringstead"), [...words, "--data", data]);
const ready = (): ReadyFile => JSON.parse(readFileSync(join(data, "ready.json"), "utf8")) as ReadyFile;

/** A shell as a user has it after `. DIR/openrc`. */
const withOpenrc = (command: string): Promise<CommandRun> =>
  runCommand("sh", ["-c", `. ${data}/openrc && ${command}`], { env: cleanEnvironment() });
const withCloudsYaml = (...words: string[]): Promise<CommandRun> =>
  runCommand("openstack", ["--os-cloud", "ringstead", ...words], {
    env: { ...cleanEnvironment(), OS_CLIENT_CONFIG_FILE: join(data, "clouds.yaml") },
  });

beforeAll(async () => {
  offset = await freePortOffset();
  execFileSync(
    "openssl",
    [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=localhost",
      "-addext",
      "subjectAltName=DNS:localhost,IP:127.0.0.1",
      "-keyout",
      key,
      "-out",
      certificate,
    ],
    { stdio: "ignore" },
  );
});

afterAll(async () => {
  await ringstead("down");
  rmSync(folder, { recursive: true, force: true });
});

it("a port of S3 that is in use stops the start before anything is made, and is named", async () => {
  const port = PUBLIC_PORTS.s3 + offset;
  const server = createServer().listen(port, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const refused = await start("--port-offset", String(offset), "--admin-password", "first one");
  server.close();
  expect(refused.code).toBe(1);
  expect(refused.lastLine).toBe(
    `port ${port} (s3) on 127.0.0.1 is in use by another program: stop it, or choose others with --port-offset N`,
  );
});

it("with a given password, the openstack client works at once with clouds.yaml and with openrc", async () => {
  expect(await start("--port-offset", String(offset), "--admin-password", "first one")).toMatchObject({ code: 0 });
  expect(ready().admin.password).toBe("first one");
  expect((await withCloudsYaml("container", "create", "kept")).code).toBe(0);
  expect((await withCloudsYaml("container", "list", "-f", "value")).output.trim()).toBe("kept");
  expect((await withOpenrc("openstack token issue -f value -c user_id")).output).toMatch(/^[0-9a-f]{32}$/m);
  expect((await withOpenrc("swift list")).output.trim()).toBe("kept");
});

it("the S3 port answers 501 as S3 does, and a signed request on the object port is one to S3", async () => {
  const alone = await fetch(`http://127.0.0.1:${PUBLIC_PORTS.s3 + offset}/bucket`);
  expect([alone.status, alone.headers.has("x-amz-request-id")]).toEqual([501, true]);
  expect(await alone.text()).toContain("<Code>NotImplemented</Code>");
  const headers = { authorization: "AWS AKIA:c2lnbmF0dXJl" };
  const shared = await fetch(`http://127.0.0.1:${PUBLIC_PORTS.object + offset}/`, { headers });
  expect([shared.status, await shared.text()]).toEqual([400, expect.stringContaining("Please use AWS4-HMAC-SHA256")]);
  expect(ready().endpoints).not.toHaveProperty("s3");
  expect(ready().unavailable.find(({ service }) => service === "s3")?.reason).toContain("501 NotImplemented");
});

it("metrics are served where metrics_bind says and nowhere else", async () => {
  const page = await fetch(`http://127.0.0.1:${METRICS_PORT + offset}/metrics`);
  expect(await page.text()).toContain("ringstead_process_up");
  for (const port of [PUBLIC_PORTS.identity, PUBLIC_PORTS.object, PUBLIC_PORTS.s3]) {
    const text = await (await fetch(`http://127.0.0.1:${port + offset}/metrics`)).text();
    expect(text).not.toContain("ringstead_process_up");
  }
  const other = Object.values(networkInterfaces())
    .flat()
    .find((address) => address?.family === "IPv4" && !address.internal);
  if (other !== undefined)
    await expect(fetch(`http://${other.address}:${METRICS_PORT + offset}/metrics`)).rejects.toThrow();
});

it("an export or guest is left running by down --keep-running, adopted by the next up, and stopped by down", async () => {
  const guest = spawn("sleep", ["600"], { detached: true, stdio: "ignore" });
  guest.unref();
  const identity = { role: "guest:1", pid: guest.pid!, startTime: startTimeOf(guest.pid!)! };
  await ringstead("down", "--keep-running");
  const file = join(data, "supervisor.json");
  const state = JSON.parse(readFileSync(file, "utf8")) as SupervisorState;
  writeFileSync(file, JSON.stringify({ ...state, adopted: [identity] }));
  const kept = await ringstead("down", "--keep-running");
  expect(kept.lastLine).toBe(`Left running: guest:1 (pid ${identity.pid}).`);
  expect(await start()).toMatchObject({ code: 0 });
  expect(ready().processes.at(-1)).toEqual(identity);
  expect((await ringstead("down", "--keep-running")).lastLine).toContain("guest:1");
  expect(startTimeOf(identity.pid)).toBe(identity.startTime);
  expect((await ringstead("down")).code).toBe(0);
  expect(startTimeOf(identity.pid)).toBeUndefined();
});

it("a new --admin-password, TLS and every address: clients use them, and the old password is refused", async () => {
  const options = ["--admin-password", "second one", "--tls-cert", certificate, "--tls-key", key];
  expect(await start(...options, "--bind", "0.0.0.0", "--public-url", "localhost")).toMatchObject({ code: 0 });
  expect(ready().endpoints).toMatchObject({
    identity: `https://localhost:${PUBLIC_PORTS.identity + offset}/v3`,
    object: `https://localhost:${PUBLIC_PORTS.object + offset}/v1`,
  });
  expect((await withCloudsYaml("container", "list", "-f", "value")).output.trim()).toBe("kept");
  expect((await withOpenrc("swift list")).output.trim()).toBe("kept");
  expect((await withOpenrc(`swift upload kept ${certificate} --object-name cert`)).code).toBe(0);
  expect((await withOpenrc("swift download kept cert -o -")).output).toContain("BEGIN CERTIFICATE");
  expect((await withOpenrc("OS_PASSWORD='first one' openstack token issue")).code).toBe(1);
  const s3 = await runCommand(
    "curl",
    ["-s", "--cacert", certificate, `https://localhost:${PUBLIC_PORTS.s3 + offset}/b`],
    {
      env: cleanEnvironment(),
    },
  );
  expect(s3.output).toContain("<Code>NotImplemented</Code>");
  expect((await ringstead("status")).code).toBe(0);
});

it("the options were remembered, and --only holds for one run", async () => {
  expect((await ringstead("down")).code).toBe(0);
  expect(await start("--only", "identity")).toMatchObject({ code: 0 });
  expect(Object.keys(ready().endpoints)).toEqual(["identity"]);
  expect(ready().processes.map(({ role }) => role)).toEqual(["supervisor", "identity"]);
  expect((await ringstead("status")).code).toBe(0);
  expect((await ringstead("down")).code).toBe(0);
  expect(await start()).toMatchObject({ code: 0 });
  expect(Object.keys(ready().endpoints)).toEqual(expect.arrayContaining(["identity", "object"]));
  expect(ready().admin.password).toBe("second one");
  expect((await withOpenrc("swift list kept")).output.trim()).toBe("cert");
});

it("a certificate that cannot be read stops the start with its path", async () => {
  await ringstead("down");
  const refused = await start("--tls-cert", "/no/such.pem", "--tls-key", key);
  expect(refused.code).toBe(2);
  expect(refused.lastLine).toMatch(/^TLS file \/no\/such\.pem cannot be read: ENOENT/);
});
