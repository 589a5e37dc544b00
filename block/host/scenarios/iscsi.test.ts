import { execFile } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { exportProcesses } from "../../../scripts/export-processes.ts";
import type { VolumeExport } from "../../volume-host.ts";
import { uriOf } from "../test-host.ts";
import { HostProcess } from "./host-process.ts";

const MIB = 1024 * 1024;
const SIZE_MIB = 48;
const RINGSTEAD = join(import.meta.dirname, "..", "..", "..", "scripts", "ringstead");
const run = promisify(execFile);

const started = async (): Promise<HostProcess> => {
  const host = new HostProcess();
  onTestFinished(() => host[Symbol.asyncDispose]());
  await host.start();
  return host;
};

const exportOverIscsi = async ({ host }: HostProcess, volumeId: string, attachmentId: string = randomUUID()) => {
  const wanted = { volumeId, attachmentId, transport: "iscsi", isReadOnly: false } as const;
  const exported = await host.exportVolume(wanted);
  if (exported.kind !== "iscsi") throw new Error("iSCSI was asked for");
  return exported;
};

const pidOf = (host: HostProcess, role: string): number =>
  exportProcesses(host.runtime).find((one) => one.role === role)?.pid ?? 0;

const until = async (condition: () => boolean | Promise<boolean>): Promise<void> => {
  for (let attempt = 0; attempt < 1200; attempt++) {
    if (await condition()) return;
    await sleep(25);
  }
  throw new Error("it does not come about");
};

/** Kills the process and waits for the next one in its place. */
const killed = async (host: HostProcess, role: string): Promise<void> => {
  const pid = pidOf(host, role);
  expect(pid).toBeGreaterThan(0);
  process.kill(pid, "SIGKILL");
  await until(() => ![0, pid].includes(pidOf(host, role)));
};

/** Writes all of the volume once through QEMU's initiator, at a measured pace, while `disturb` runs, then compares. */
const verified = async (
  host: HostProcess,
  exported: VolumeExport,
  mibPerSecond: number,
  disturb: () => Promise<void>,
): Promise<void> => {
  const [source, back] = [join(host.folder, "bytes"), join(host.folder, "back")];
  const bytes = randomBytes(SIZE_MIB * MIB);
  writeFileSync(source, bytes);
  const pace = ["-r", `${mibPerSecond}M`];
  const raw = ["-f", "raw", "-O", "raw"];
  const copy = run("qemu-img", ["convert", "-n", "-W", ...pace, ...raw, source, uriOf(exported)], { timeout: 120_000 });
  await Promise.all([copy, disturb()]);
  await run("qemu-img", ["convert", ...raw, uriOf(exported), back], { timeout: 60_000 });
  expect(readFileSync(back).subarray(0, bytes.length).equals(bytes)).toBe(true);
};

test("the command prints one line that libiscsi and QEMU open, and unexport closes it", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const command = async (...words: readonly string[]) =>
    (await run(RINGSTEAD, ["volume", ...words, "--data", host.folder])).stdout;
  const line = await command("export", volumeId, "--protocol", "iscsi");
  const target = `iqn\\.2010-10\\.org\\.openstack:volume-${volumeId}`;
  expect(line).toMatch(new RegExp(`^iscsi://${volumeId}%[A-Za-z0-9]{16}@127\\.0\\.0\\.1:\\d+/${target}/1\\n$`));
  expect(await command("export", volumeId, "--protocol", "iscsi")).toBe(line);
  const uri = line.trim();
  expect((await run("iscsi-inq", [uri])).stdout).toContain("RINGSTED");
  const { stdout } = await run("qemu-img", ["info", "--output=json", "-f", "raw", uri]);
  expect(JSON.parse(stdout)).toMatchObject({ "virtual-size": 16 * MIB });
  expect(exportProcesses(host.runtime).map(({ role }) => role)).toEqual([
    `export:${volumeId}`,
    "tgtd",
    `iscsi:${volumeId}`,
  ]);
  await command("unexport", volumeId);
  await expect(run("iscsi-inq", [uri])).rejects.toThrow();
  expect(exportProcesses(host.runtime)).toEqual([]);
});

test("a disk passes the tests of libiscsi for what is read, written, discarded and refused", async () => {
  const host = await started();
  const exported = await exportOverIscsi(host, await host.newVolume(32 * MIB));
  const families = [
    "Read10.Simple",
    "Write10.Simple",
    "Unmap.Simple",
    "ReadCapacity16.Simple",
    "TestUnitReady.Simple",
    "ProutRegister.Simple",
  ];
  for (const family of families) {
    const words = ["--dataloss", "--silent", `--test=SCSI.${family}`, uriOf(exported)];
    const { stdout } = await run("iscsi-test-cu", words, { timeout: 120_000 });
    expect([family, /asserts\s+\d+\s+\d+\s+\d+\s+(\d+)/.exec(stdout)?.[1]]).toEqual([family, "0"]);
  }
});

test("tgtd is killed under a client that writes: it is there again with its targets, and every byte arrives", async () => {
  const host = await started();
  const volumeId = await host.newVolume(SIZE_MIB * MIB);
  const exported = await exportOverIscsi(host, volumeId);
  await verified(host, exported, 12, async () => {
    for (let round = 0; round < 3; round++) {
      await sleep(500);
      await killed(host, "tgtd");
    }
  });
});

test("the volume's daemon is killed under a client that writes: it waits, and every byte arrives", async () => {
  const host = await started();
  const volumeId = await host.newVolume(SIZE_MIB * MIB);
  const exported = await exportOverIscsi(host, volumeId);
  await verified(host, exported, 12, async () => {
    for (let round = 0; round < 3; round++) {
      await sleep(500);
      await killed(host, `export:${volumeId}`);
    }
  });
});

test("the host is killed under a client that writes: the next one has the same processes, snapshots and merges", async () => {
  const host = await started();
  const volumeId = await host.newVolume(SIZE_MIB * MIB);
  const exported = await exportOverIscsi(host, volumeId);
  const before = exportProcesses(host.runtime);
  await host.host.limitVolumes(new Map([[volumeId, { "bytes-total": 100 * MIB, "bytes-total-max": 200 * MIB }]]));
  await verified(host, exported, 12, async () => {
    for (let round = 0; round < 3; round++) {
      await sleep(300);
      await host.kill();
      await sleep(200);
      await host.start();
      expect(exportProcesses(host.runtime)).toEqual(before);
      const snapshotId = randomUUID();
      await host.host.createSnapshot(volumeId, snapshotId);
      await host.host.deleteSnapshot(volumeId, snapshotId);
    }
  });
  expect(await exportOverIscsi(host, volumeId, exported.username)).toEqual(exported);
});

test("a disk grows under a client that writes", async () => {
  const host = await started();
  const volumeId = await host.newVolume(SIZE_MIB * MIB);
  const exported = await exportOverIscsi(host, volumeId);
  await verified(host, exported, 12, async () => {
    for (const sizeMib of [64, 80]) {
      await sleep(600);
      await host.newVolume(8 * MIB);
      await host.host.extendVolume(volumeId, sizeMib * MIB);
      const { stdout } = await run("iscsi-readcapacity16", [uriOf(exported)]);
      expect(stdout).toContain(`Total size:${sizeMib * MIB}`);
    }
  });
});
