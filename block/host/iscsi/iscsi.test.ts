import { execFile, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { startTimeOf } from "../../../common/process-identity.ts";
import { runWorkers } from "../../../common/worker.ts";
import { silentLog } from "../../../common/log.ts";
import type { VolumeExport } from "../../volume-host.ts";
import { TestHost, uriOf, writeTo } from "../test-host.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);
type Iscsi = Extract<VolumeExport, { kind: "iscsi" }>;

const opened = async (): Promise<TestHost> => {
  const fixture = new TestHost("file");
  await fixture.open();
  return fixture;
};

const exportOverIscsi = async (fixture: TestHost, volumeId: string, options: object = {}): Promise<Iscsi> => {
  const wanted = { volumeId, attachmentId: randomUUID(), transport: "iscsi", isReadOnly: false, ...options } as const;
  const exported = await fixture.host.exportVolume(wanted);
  if (exported.kind !== "iscsi") throw new Error("iSCSI was asked for");
  return exported;
};

/** What libiscsi's client says of the disk; rejects where it does not get in. */
const inquire = async (exported: Iscsi, initiator?: string): Promise<string> =>
  (
    await run("iscsi-inq", [...(initiator === undefined ? [] : ["-i", initiator]), uriOf(exported)], {
      timeout: 20_000,
    })
  ).stdout;

const sizeOf = async (exported: Iscsi): Promise<number> => {
  const { stdout } = await run("qemu-img", ["info", "--output=json", "-f", "raw", uriOf(exported)]);
  return (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"];
};

const readAll = async (exported: Iscsi, folder: string): Promise<Buffer> => {
  await run("qemu-img", ["convert", "-f", "raw", "-O", "raw", uriOf(exported), `${folder}/read`]);
  return readFileSync(`${folder}/read`);
};

test("a volume is a disk that libiscsi and QEMU open with the attachment's secret, and nobody without", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(64 * MIB);
  const exported = await exportOverIscsi(fixture, volumeId);
  expect(exported.targetName).toBe(`iqn.2010-10.org.openstack:volume-${volumeId}`);
  expect(await inquire(exported)).toContain("RINGSTED");
  expect(await sizeOf(exported)).toBe(64 * MIB);
  const bytes = randomBytes(MIB);
  await writeTo(uriOf(exported), 5 * MIB, bytes);
  expect((await readAll(exported, fixture.folder)).subarray(5 * MIB, 6 * MIB).equals(bytes)).toBe(true);
  await expect(inquire({ ...exported, secret: "0123456789abcdef" })).rejects.toThrow("Authentication failure");
  const bare = uriOf(exported).replace(/\/\/.*@/, "//");
  await expect(run("iscsi-inq", [bare], { timeout: 20_000 })).rejects.toThrow();
  const other = await exportOverIscsi(fixture, await fixture.newVolume(8 * MIB));
  const { username, secret } = other;
  await expect(inquire({ ...exported, username, secret })).rejects.toThrow("Authentication failure");
  expect(await inquire(other)).toContain("RINGSTED");
  await expect(run("iscsi-ls", [`iscsi://${exported.host}:${exported.port}`], { timeout: 20_000 })).rejects.toThrow();
});

test("only the initiator that an attachment is for logs in", async () => {
  const fixture = await opened();
  const initiator = "iqn.1993-08.org.debian:01:mine";
  const exported = await exportOverIscsi(fixture, await fixture.newVolume(8 * MIB), { initiator });
  expect(await inquire(exported, initiator)).toContain("RINGSTED");
  await expect(inquire(exported, "iqn.1993-08.org.debian:01:theirs")).rejects.toThrow("Target not found");
});

test("attachments come and go, and those that stay get in: also the one that came last", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const all = [];
  for (let count = 0; count < 4; count++) all.push(await exportOverIscsi(fixture, volumeId));
  for (const gone of all.splice(0, 2)) {
    await fixture.host.unexportVolume(volumeId, gone.username);
    await expect(inquire(gone)).rejects.toThrow("Authentication failure");
    for (const one of all) expect(await inquire(one)).toContain("RINGSTED");
  }
  const late = await exportOverIscsi(fixture, volumeId);
  for (const one of [...all, late]) expect(await inquire(one)).toContain("RINGSTED");
});

test("a read-only attachment reads and does not write, and what does not go together is refused with words", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  await fixture.write(volumeId, 0, Buffer.alloc(MIB, 7));
  const exported = await exportOverIscsi(fixture, volumeId, { isReadOnly: true });
  expect((await readAll(exported, fixture.folder))[MIB - 1]).toBe(7);
  await expect(writeTo(uriOf(exported), 0, Buffer.alloc(MIB, 8))).rejects.toThrow();
  expect((await readAll(exported, fixture.folder))[0]).toBe(7);
  await expect(exportOverIscsi(fixture, volumeId)).rejects.toThrow("over iSCSI read-only: attachments must not differ");
  const overTcp = { volumeId, attachmentId: randomUUID(), transport: "tcp", isReadOnly: true } as const;
  await expect(fixture.host.exportVolume(overTcp)).rejects.toThrow("over iSCSI already");
});

test("who writes over iSCSI has no writer over NBD beside him, who could flush what is then written over", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const overNbd = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
  const { username } = await exportOverIscsi(fixture, volumeId);
  await expect(fixture.host.exportVolume(overNbd)).rejects.toThrow("over iSCSI for writing");
  await fixture.host.exportVolume({ ...overNbd, isReadOnly: true });
  await fixture.host.unexportVolume(volumeId, username);
  await fixture.host.unexportVolume(volumeId, overNbd.attachmentId);
  await fixture.host.exportVolume(overNbd);
  await expect(exportOverIscsi(fixture, volumeId)).rejects.toThrow("on a Unix socket for writing");
});

test("what is discarded gives its space back, without a discard that might not leave zeros", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(32 * MIB);
  const exported = await exportOverIscsi(fixture, volumeId);
  const before = await fixture.allocatedBytes();
  await writeTo(uriOf(exported), 0, randomBytes(16 * MIB));
  expect((await fixture.allocatedBytes()) - before).toBeGreaterThan(15 * MIB);
  await run("qemu-io", ["-f", "raw", "-c", "discard 0 16M", "-c", "flush", uriOf(exported)]);
  expect((await fixture.allocatedBytes()) - before).toBeLessThan(MIB);
  expect((await readAll(exported, fixture.folder)).equals(Buffer.alloc(32 * MIB))).toBe(true);
});

test("a disk grows while it is served, and is there for the next host", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(16 * MIB);
  const exported = await exportOverIscsi(fixture, volumeId);
  const bytes = randomBytes(MIB);
  await writeTo(uriOf(exported), 0, bytes);
  await fixture.host.extendVolume(volumeId, 32 * MIB);
  expect(await sizeOf(exported)).toBe(32 * MIB);
  await fixture.host.createSnapshot(volumeId, randomUUID());
  await fixture.reopen();
  await fixture.host.extendVolume(volumeId, 48 * MIB);
  expect(await sizeOf(exported)).toBe(48 * MIB);
  expect((await readAll(exported, fixture.folder)).subarray(0, MIB).equals(bytes)).toBe(true);
});

const processesOf = (fixture: TestHost): readonly { role: string; pid: number }[] =>
  (JSON.parse(readFileSync(fixture.paths.iscsiProcesses, "utf8")) as { daemons: { role: string; pid: number }[] })
    .daemons;

const pidOf = (fixture: TestHost, role: string): number =>
  processesOf(fixture).find((one) => one.role === role)?.pid ?? 0;

const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("it does not come about");
};

test("tgtd and a disk's front are started again where they die, and both end with the last attachment", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const exported = await exportOverIscsi(fixture, volumeId);
  const workers = runWorkers([fixture.host.watcher()], { log: silentLog });
  onTestFinished(() => workers[Symbol.asyncDispose]());
  for (const role of ["tgtd", `iscsi:${volumeId}`]) {
    const pid = pidOf(fixture, role);
    process.kill(pid, "SIGKILL");
    await until(() => ![0, pid].includes(pidOf(fixture, role)));
    // What comes before tgtd has the next front's file open fails.
    await until(() =>
      writeTo(uriOf(exported), 0, Buffer.alloc(MIB, 3)).then(
        () => true,
        () => false,
      ),
    );
  }
  expect(processesOf(fixture).map(({ role }) => role)).toEqual(["tgtd", `iscsi:${volumeId}`]);
  await fixture.host.unexportVolume(volumeId, exported.username);
  expect(processesOf(fixture)).toEqual([]);
  await expect(inquire(exported)).rejects.toThrow();
});

test("no secret is in any command line or log", async () => {
  const fixture = await opened();
  const exported = await exportOverIscsi(fixture, await fixture.newVolume(8 * MIB));
  await inquire(exported);
  const { stdout } = await run("ps", ["-eww", "-o", "args"]);
  expect(stdout).not.toContain(exported.secret);
  expect(readFileSync(fixture.paths.targetLog, "utf8")).not.toContain(exported.secret);
});

test("a tgtd that was not written down is found by what listens, and what only says the same words is left alone", async () => {
  const fixture = await opened();
  const volumeId = await fixture.newVolume(8 * MIB);
  const exported = await exportOverIscsi(fixture, volumeId);
  const pid = pidOf(fixture, "tgtd");
  const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").filter(Boolean);
  const decoy = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)", "--", ...words, fixture.paths.folder]);
  onTestFinished(() => void decoy.kill("SIGKILL"));
  rmSync(fixture.paths.iscsiProcesses);
  await fixture.reopen();
  expect(pidOf(fixture, "tgtd")).toBe(pid);
  expect(await inquire(exported)).toContain("RINGSTED");
  await fixture.host.unexportVolume(volumeId, exported.username);
  await until(() => startTimeOf(pid) === undefined);
  // With no tgtd there is nobody to adopt: another one is started, and the decoy goes on.
  await exportOverIscsi(fixture, volumeId);
  expect([pid, decoy.pid]).not.toContain(pidOf(fixture, "tgtd"));
  expect(decoy.exitCode ?? decoy.signalCode).toBeNull();
});
