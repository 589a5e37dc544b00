import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { exportProcesses } from "../../../scripts/export-processes.ts";
import type { VolumeExport } from "../../volume-host.ts";
import { sizeOf, uriOf } from "../test-host.ts";
import { HostProcess } from "./host-process.ts";
import { QemuSession } from "./qemu-session.ts";

/*
 * Processes of an iSCSI disk that die together, or while another one waits for them: what was lost is said, nothing stays half done, and nobody waits for
 * what does not come.
 */
const MIB = 1024 * 1024;
const run = promisify(execFile);

const started = async (): Promise<HostProcess> => {
  const host = new HostProcess();
  onTestFinished(() => host[Symbol.asyncDispose]());
  await host.start();
  return host;
};

const exported = ({ host }: HostProcess, volumeId: string, how: object = {}): Promise<VolumeExport> =>
  host.exportVolume({ volumeId, attachmentId: randomUUID(), transport: "iscsi", isReadOnly: false, ...how });

const attachmentOf = (one: VolumeExport): string => (one.kind === "iscsi" ? one.username : one.exportName);

const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  for (let attempt = 0; attempt < 2400; attempt++) {
    if (await condition()) return;
    await sleep(25);
  }
  throw new Error("it does not come about");
};

const works = (done: Promise<unknown>): Promise<boolean> =>
  done.then(
    () => true,
    () => false,
  );

const pidOf = (host: HostProcess, role: string): number => {
  const pid = exportProcesses(host.runtime).find((one) => one.role === role)?.pid ?? 0;
  expect(pid).toBeGreaterThan(1);
  return pid;
};

const fileOf = (host: HostProcess, volumeId: string, name: string): string =>
  join(host.folder, "block-host", "disks", volumeId, name);

/** Stops the process until the end of the test, or until the function is called. */
const stopped = (pid: number): (() => void) => {
  process.kill(pid, "SIGSTOP");
  const go = (): void => {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // It is gone.
    }
  };
  onTestFinished(go);
  return go;
};

/** Writes without a flush, and stops the front before it flushes of itself. */
const writeUnflushed = async (host: HostProcess, volumeId: string, session: QemuSession): Promise<void> => {
  for (;;) {
    await session.ask("write -P 1 1M 64k");
    const go = stopped(pidOf(host, `iscsi:${volumeId}`));
    const mark = readFileSync(fileOf(host, volumeId, "unflushed"), "utf8");
    if (!/ (clean|unsaid|lost) /.test(mark)) return;
    go();
  }
};

const served = async (host: HostProcess, session: QemuSession): Promise<void> => {
  await until(() => works(session.ask("read 0 4k")));
  expect(exportProcesses(host.runtime).length).toBe(3);
};

test.each([
  ["together with the daemon: the first flush at the next ones fails, and no other", true, false],
  ["alone: nothing is lost, and no flush fails", false, false],
  ["together with the daemon, all flushed: no flush fails", true, true],
])("a front dies with writes that are answered and not flushed, %s", async (_, isWithDaemon, isFlushed) => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const session = new QemuSession(uriOf(await exported(host, volumeId)));
  // Upon a snapshot a daemon has what its overlay maps in memory alone.
  await host.host.createSnapshot(volumeId, randomUUID());
  if (isFlushed) await session.ask("write -f -P 1 1M 64k");
  else await writeUnflushed(host, volumeId, session);
  const [front, daemon] = [pidOf(host, `iscsi:${volumeId}`), pidOf(host, `export:${volumeId}`)];
  process.kill(front, "SIGKILL");
  if (isWithDaemon) process.kill(daemon, "SIGKILL");
  await until(() => exportProcesses(host.runtime).every(({ pid }) => pid !== front));
  await served(host, session);
  const isLossSaid = isWithDaemon && !isFlushed;
  expect(await works(session.ask("write -f -P 2 2M 64k"))).toBe(!isLossSaid);
  await session.ask("write -f -P 2 2M 64k");
  await session.ask("read -P 2 2M 64k");
  if (!isLossSaid) await session.ask("read -P 1 1M 64k");
});

test("a host that is killed when the front has the new size and tgtd has not shows it at its next start", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const opened = await exported(host, volumeId);
  await run("iscsi-inq", [uriOf(opened)]);
  const go = stopped(pidOf(host, "tgtd"));
  const extended = host.host.extendVolume(volumeId, 32 * MIB).catch(() => undefined);
  await until(async () => (await stat(fileOf(host, volumeId, "disk"))).size === 32 * MIB);
  await host.kill();
  go();
  await host.start();
  await extended;
  const { stdout } = await run("iscsi-readcapacity16", [uriOf(opened)]);
  expect(stdout).toContain(`Total size:${32 * MIB}`);
});

test("a host that is killed when there is another front and tgtd still has the dead one's file shows the disk at its next start", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const session = new QemuSession(uriOf(await exported(host, volumeId)));
  await session.ask("write -f -P 3 0 64k");
  const go = stopped(pidOf(host, "tgtd"));
  const front = pidOf(host, `iscsi:${volumeId}`);
  process.kill(front, "SIGKILL");
  await until(() =>
    exportProcesses(host.runtime).some(({ role, pid }) => role === `iscsi:${volumeId}` && pid !== front),
  );
  await host.kill();
  go();
  await host.start();
  await until(() => works(session.ask("read -P 3 0 64k")));
  await session.ask("write -f -P 4 0 64k");
});

test("an iSCSI disk is taken away under who writes to it, while a reader over NBD goes on", async () => {
  const host = await started();
  const volumeId = await host.newVolume(64 * MIB);
  const [disk, reader] = [
    await exported(host, volumeId),
    await exported(host, volumeId, { transport: "unix", isReadOnly: true }),
  ];
  for (const limits of [new Map(), new Map([[volumeId, { "bytes-total": MIB }]])]) {
    await host.host.limitVolumes(limits);
    const again = await exported(host, volumeId, { attachmentId: attachmentOf(disk) });
    const words = ["bench", "-f", "raw", "-w", "-t", "none", "-c", "1000000", "-d", "32", "-s", "65536", uriOf(again)];
    const writing = run("qemu-img", words);
    const writer = writing.child;
    onTestFinished(() => void writer.kill("SIGKILL"));
    void writing.catch(() => undefined);
    const mark = (): string => readFileSync(fileOf(host, volumeId, "unflushed"), "utf8");
    await until(() => !/ clean /.test(mark()));
    await host.host.unexportVolume(volumeId, attachmentOf(disk));
    writer.kill("SIGKILL");
    expect(exportProcesses(host.runtime).map(({ role }) => role)).toEqual([`export:${volumeId}`]);
    await expect(run("iscsi-inq", [uriOf(again)], { timeout: 20_000 })).rejects.toThrow();
    expect(await sizeOf(uriOf(reader))).toBe(64 * MIB);
  }
});

test("a disk is taken away with its daemon hanging and writes under way, and what was its volume's can be deleted", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const disk = await exported(host, volumeId);
  const session = new QemuSession(uriOf(disk));
  await session.ask("write -f -P 1 0 64k");
  stopped(pidOf(host, `export:${volumeId}`));
  void session.ask("write -P 2 0 64k").catch(() => undefined);
  await host.host.unexportVolume(volumeId, attachmentOf(disk));
  expect(exportProcesses(host.runtime)).toEqual([]);
  await host.host.deleteVolume(volumeId);
});
