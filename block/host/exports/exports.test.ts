import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, renameSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { startTimeOf } from "../../../common/process-identity.ts";
import { runWorkers } from "../../../common/worker.ts";
import { silentLog } from "../../../common/log.ts";
import type { VolumeExport } from "../../volume-host.ts";
import { readFrom, sizeOf, TestHost, uriOf, writeTo } from "../test-host.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);

type Tls = Extract<VolumeExport, { kind: "nbd-tls" }>;

const opened = async (): Promise<TestHost> => {
  const fixture = new TestHost("file");
  await fixture.open();
  return fixture;
};

const exportOverTcp = async (
  fixture: TestHost,
  volumeId: string,
  attachmentId: string = randomUUID(),
): Promise<Tls> => {
  const wanted = { volumeId, attachmentId, transport: "tcp", isReadOnly: false } as const;
  const exported = await fixture.host.exportVolume(wanted);
  if (exported.kind !== "nbd-tls") throw new Error("TCP was asked for");
  return exported;
};

/** As somebody with the key of `other` who knows where the volume is. */
const withKeyOf = (exported: Tls, other: Tls): string =>
  uriOf({ ...exported, credentialFolder: other.credentialFolder }).replace(
    `nbds://${exported.exportName}@`,
    `nbds://${other.exportName}@`,
  );

const daemonOf = async (fixture: TestHost, volumeId: string): Promise<number> => {
  const found = (await fixture.host.exports()).find((one) => one.volumeId === volumeId);
  if (found === undefined) throw new Error(`volume ${volumeId} is not served`);
  return found.pid;
};

const untilServed = async (uri: string): Promise<void> => {
  for (let attempt = 0; attempt < 100; attempt++) {
    const isServed = await sizeOf(uri).then(
      () => true,
      () => false,
    );
    if (isServed) return;
    await sleep(20);
  }
  throw new Error("the volume is not served");
};

test("over TCP the attachment's own key opens the volume", async () => {
  const fixture = await opened();
  const exported = await exportOverTcp(fixture, await fixture.newVolume(8 * MIB));
  expect(await sizeOf(uriOf(exported))).toBe(8 * MIB);
  const { stdout } = await run("nbdinfo", [uriOf(exported)]);
  expect(stdout).toContain("with TLS, using structured packets");
  expect(stdout).toContain("can_multi_conn: true");
  expect(stdout).toContain("can_trim: true");
  expect(stdout).toContain("can_fua: true");
  expect(stdout).toContain("base:allocation");
});

test("QEMU opens it with the folder of the credential", async () => {
  const fixture = await opened();
  const { port, exportName, credentialFolder } = await exportOverTcp(fixture, await fixture.newVolume(8 * MIB));
  const key = `tls-creds-psk,id=key,endpoint=client,dir=${credentialFolder},username=${exportName}`;
  const image = `driver=nbd,host=127.0.0.1,port=${port},export=${exportName},tls-creds=key`;
  const { stdout } = await run("qemu-img", ["info", "--output=json", "--object", key, "--image-opts", image]);
  expect(JSON.parse(stdout)).toMatchObject({ "virtual-size": 8 * MIB });
});

test("another tenant's valid key is refused in the handshake, and so is none", async () => {
  const fixture = await opened();
  const [mine, theirs] = [await fixture.newVolume(8 * MIB), await fixture.newVolume(8 * MIB)];
  const [exported, other] = [await exportOverTcp(fixture, mine), await exportOverTcp(fixture, theirs)];
  expect(await sizeOf(uriOf(other))).toBe(8 * MIB);
  await expect(run("nbdinfo", [withKeyOf(exported, other)])).rejects.toThrow("gnutls_handshake");
  // Also the list of what is served is for those only who get in.
  await expect(run("nbdinfo", ["--list", withKeyOf(exported, other)])).rejects.toThrow("gnutls_handshake");
  const asMine = withKeyOf(exported, other).replace(other.exportName, exported.exportName);
  await expect(run("nbdinfo", [asMine])).rejects.toThrow();
  await expect(run("nbdinfo", [`nbd://127.0.0.1:${exported.port}/${exported.exportName}`])).rejects.toThrow();
  await expect(run("nbdinfo", ["--list", `nbd://127.0.0.1:${exported.port}`])).rejects.toThrow();
});

test("a key opens nothing once its attachment is gone, while the volume's others go on", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const [first, second] = [await exportOverTcp(fixture, volumeId), await exportOverTcp(fixture, volumeId)];
  const key = readFileSync(`${first.credentialFolder}/keys.psk`, "utf8");
  await fixture.host.unexportVolume(volumeId, first.exportName);
  expect(existsSync(first.credentialFolder)).toBe(false);
  expect(readFileSync(`${fixture.paths.daemonFolder(volumeId)}/keys.psk`, "utf8")).not.toContain(key);
  expect(await sizeOf(uriOf(second))).toBe(8 * MIB);
});

test("an attachment goes though those that stay cannot be served, as long as nobody serves it", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const [first, second] = [await exportOverTcp(fixture, volumeId), await exportOverTcp(fixture, volumeId)];
  const pid = await daemonOf(fixture, volumeId);
  process.kill(pid, "SIGKILL");
  while (startTimeOf(pid) !== undefined) await sleep(5);
  const away = `${fixture.paths.poolFolder}-away`;
  renameSync(fixture.paths.poolFolder, away);
  await fixture.host.unexportVolume(volumeId, first.exportName);
  await fixture.host.unexportVolume(volumeId, first.exportName);
  renameSync(away, fixture.paths.poolFolder);
  await fixture.reopen();
  expect(await sizeOf(uriOf(second))).toBe(8 * MIB);
  await expect(run("nbdinfo", [uriOf(first)])).rejects.toThrow();
});

test("keys are for their owner's eyes alone", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const { credentialFolder } = await exportOverTcp(fixture, volumeId);
  for (const folder of [credentialFolder, fixture.paths.daemonFolder(volumeId)]) {
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(`${folder}/keys.psk`).mode & 0o777).toBe(0o600);
  }
});

test("attachments that one daemon cannot keep apart are refused with words", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  await exportOverTcp(fixture, volumeId);
  const other = { volumeId, attachmentId: randomUUID() };
  const refused = { code: "port-unavailable" };
  await expect(fixture.host.exportVolume({ ...other, transport: "unix", isReadOnly: false })).rejects.toMatchObject(
    refused,
  );
  await expect(fixture.host.exportVolume({ ...other, transport: "tcp", isReadOnly: true })).rejects.toMatchObject(
    refused,
  );
});

test("an attachment keeps the write-through that it began with, also upon the next daemon", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const wanted = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
  const exported = await fixture.host.exportVolume({ ...wanted, isWriteThrough: true });
  expect(await fixture.host.exportVolume({ ...wanted, isWriteThrough: true })).toEqual(exported);
  await expect(fixture.host.exportVolume(wanted)).rejects.toThrow("with write-through: unexport that first");
  await fixture.host.createSnapshot(volumeId, randomUUID());
  for (const round of [1, 2]) {
    // Without -c flush at its end: only what was synced for each write outlives the daemon.
    const command = `write -q -P ${round} ${round}M 64k`;
    const writer = spawn("qemu-io", ["-f", "raw", "-c", command, "-c", "sleep 60000", uriOf(exported)], {
      stdio: "ignore",
    });
    onTestFinished(() => void writer.kill("SIGKILL"));
    await sleep(500);
    process.kill(await daemonOf(fixture, volumeId), "SIGKILL");
    writer.kill("SIGKILL");
    await fixture.reopen();
    expect((await readFrom(uriOf(exported)))[round * MIB]).toBe(round);
  }
});

test("a port that somebody else has is left to him", async () => {
  const fixture = await opened();
  const [first, second] = [await fixture.newVolume(8 * MIB), await fixture.newVolume(8 * MIB)];
  const exported = await exportOverTcp(fixture, first);
  await fixture.host.unexportVolume(first, exported.exportName);
  const { createServer } = await import("node:net");
  const squatter = createServer();
  await new Promise<void>((resolve) => squatter.listen(exported.port, "127.0.0.1", resolve));
  onTestFinished(() => void squatter.close());
  const other = await exportOverTcp(fixture, second);
  expect(other.port).not.toBe(exported.port);
  expect(await sizeOf(uriOf(other))).toBe(8 * MIB);
});

test("a daemon outlives its host, and the next one adopts it with what was changed meanwhile", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  await fixture.withExport(volumeId, async (uri) => {
    const pid = await daemonOf(fixture, volumeId);
    await fixture.reopen();
    expect(await daemonOf(fixture, volumeId)).toBe(pid);
    await writeTo(uri, 0, Buffer.alloc(MIB, 1));
    await fixture.host.createSnapshot(volumeId, randomUUID());
    await writeTo(uri, 0, Buffer.alloc(MIB, 2));
    await fixture.reopen();
    expect(await daemonOf(fixture, volumeId)).toBe(pid);
    expect((await readFrom(uri)).subarray(0, MIB).equals(Buffer.alloc(MIB, 2))).toBe(true);
  });
});

test("a daemon that was killed is started again, at the same place with the same bytes", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const workers = runWorkers([fixture.host.watcher()], { log: silentLog });
  onTestFinished(() => workers[Symbol.asyncDispose]());
  await fixture.withExport(volumeId, async (uri) => {
    await fixture.host.createSnapshot(volumeId, randomUUID());
    for (const round of [1, 2, 3]) {
      await writeTo(uri, MIB, Buffer.alloc(MIB, round));
      process.kill(await daemonOf(fixture, volumeId), "SIGKILL");
      await untilServed(uri);
      expect((await readFrom(uri)).subarray(MIB, 2 * MIB).equals(Buffer.alloc(MIB, round))).toBe(true);
    }
  });
});

test("a daemon that died while no host ran is started by the next one", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const exported = await exportOverTcp(fixture, volumeId);
  process.kill(await daemonOf(fixture, volumeId), "SIGKILL");
  await fixture.reopen();
  expect(await sizeOf(uriOf(exported))).toBe(8 * MIB);
});
