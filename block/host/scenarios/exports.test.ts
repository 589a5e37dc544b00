import { execFile, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { readFrom, sizeOf, uriOf, writeTo } from "../test-host.ts";
import { HostProcess } from "./host-process.ts";

const MIB = 1024 * 1024;
const RINGSTEAD = join(import.meta.dirname, "..", "..", "..", "scripts", "ringstead");
const run = promisify(execFile);

const started = async (): Promise<HostProcess> => {
  const host = new HostProcess();
  onTestFinished(() => host[Symbol.asyncDispose]());
  await host.start();
  return host;
};

const exportOnSocket = async ({ host }: HostProcess, volumeId: string, isWriteThrough = false) => {
  const wanted = {
    volumeId,
    attachmentId: randomUUID(),
    transport: "unix",
    isReadOnly: false,
    isWriteThrough,
  } as const;
  const exported = await host.exportVolume(wanted);
  if (exported.kind !== "nbd-unix") throw new Error("a Unix socket was asked for");
  return exported;
};

/** Writes every block once, at a measured pace, then reads all of them and compares: rejects with what fio says where one differs. */
const fioVerify = (uri: string, sizeBytes: number, writesPerSecond: number): Promise<unknown> => {
  const what = ["--rw=randwrite", "--bs=4k", "--iodepth=8", `--size=${sizeBytes}`, `--rate_iops=,${writesPerSecond}`];
  const checks = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--end_fsync=1"];
  return run("fio", ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, ...what, ...checks], { cwd: "/tmp" });
};

/** A client that comes back: QEMU's, which keeps what was not answered and asks again. */
const reconnecting = (socketPath: string, exportName: string): string =>
  `driver=nbd,server.type=unix,server.path=${socketPath},export=${exportName},reconnect-delay=30`;

/** Copies a file into the volume at so many MiB a second. */
const copyInto = (file: string, image: string, mibPerSecond: number): Promise<unknown> =>
  run("qemu-img", ["convert", "-n", "-W", "-f", "raw", "-r", `${mibPerSecond}M`, "--target-image-opts", file, image]);

const untilServedBy = async (host: HostProcess, volumeId: string, not: number): Promise<void> => {
  for (let attempt = 0; attempt < 250; attempt++) {
    const pid = await host.daemonOf(volumeId).catch(() => not);
    if (pid !== not) return;
    await sleep(20);
  }
  throw new Error("the daemon was not started again");
};

test("the command prints one line that programs open, and unexport closes it", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const command = async (...words: readonly string[]) =>
    (await run(RINGSTEAD, ["volume", ...words, "--data", host.folder])).stdout;
  const line = await command("export", volumeId, "--protocol", "nbd");
  expect(line).toMatch(/^nbd\+unix:\/\/\/[0-9a-f-]{36}\?socket=\/\S+\n$/);
  expect(await command("export", volumeId, "--protocol", "nbd")).toBe(line);
  const uri = line.trim();
  const bytes = randomBytes(MIB);
  await writeTo(uri, 3 * MIB, bytes);
  const { stdout } = await run("qemu-img", ["info", "--output=json", uri]);
  expect(JSON.parse(stdout)).toMatchObject({ "virtual-size": 16 * MIB });
  await command("unexport", volumeId);
  await expect(sizeOf(uri)).rejects.toThrow();
  const secured = (await command("export", volumeId, "--tcp", "--read-only")).trim();
  expect(secured).toMatch(/^nbds:\/\/[0-9a-f-]{36}@127\.0\.0\.1:\d+\/[0-9a-f-]{36}\?tls-psk-file=\/\S+\/keys\.psk$/);
  expect((await readFrom(secured)).subarray(3 * MIB, 4 * MIB).equals(bytes)).toBe(true);
  expect((await run("nbdinfo", [secured])).stdout).toContain("is_read_only: true");
  await command("unexport", volumeId);
  await expect(run(RINGSTEAD, ["volume", "export", randomUUID(), "--data", host.folder])).rejects.toThrow(
    "there is no volume",
  );
});

test("fio goes on while the host is killed, comes back, takes a snapshot and grows another volume", async () => {
  const host = await started();
  const volumeId = await host.newVolume(64 * MIB);
  const { socketPath, exportName } = await exportOnSocket(host, volumeId);
  const pid = await host.daemonOf(volumeId);
  const load = fioVerify(uriOf({ kind: "nbd-unix", socketPath, exportName }), 64 * MIB, 3000);
  const steps = async (): Promise<void> => {
    await sleep(500);
    await host.kill();
    await sleep(300);
    await host.start();
    expect(await host.daemonOf(volumeId)).toBe(pid);
    await host.host.createSnapshot(volumeId, randomUUID());
    await host.kill();
    await host.start();
    expect(await host.daemonOf(volumeId)).toBe(pid);
    await host.host.extendVolume(await host.newVolume(8 * MIB), 16 * MIB);
  };
  await Promise.all([load, steps()]);
});

test("a daemon that is killed while a client copies is started again, and every byte arrives", async () => {
  const host = await started();
  const volumeId = await host.newVolume(48 * MIB);
  const exported = await exportOnSocket(host, volumeId);
  const file = join(host.folder, "bytes");
  const bytes = randomBytes(48 * MIB);
  writeFileSync(file, bytes);
  const copy = copyInto(file, reconnecting(exported.socketPath, exported.exportName), 12);
  for (let round = 0; round < 3; round++) {
    await sleep(600);
    const pid = await host.daemonOf(volumeId);
    process.kill(pid, "SIGKILL");
    await untilServedBy(host, volumeId, pid);
  }
  await copy;
  expect((await readFrom(uriOf(exported))).equals(bytes)).toBe(true);
});

/** An overlay's tables are in the daemon's memory until a flush, like anything in a disk's cache: what was flushed is what has to be there. */
test("with a snapshot below, what a client flushed is there after its daemon was killed", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const exported = await exportOnSocket(host, volumeId);
  const uri = uriOf(exported);
  const expected = Buffer.alloc(16 * MIB);
  for (let round = 0; round < 4; round++) {
    await host.host.createSnapshot(volumeId, randomUUID());
    const [at, bytes] = [(3 * round + 1) * MIB, randomBytes(MIB)];
    await writeTo(uri, at, bytes);
    bytes.copy(expected, at);
    const pid = await host.daemonOf(volumeId);
    process.kill(pid, "SIGKILL");
    await untilServedBy(host, volumeId, pid);
  }
  expect((await readFrom(uri)).equals(expected)).toBe(true);
});

/** Another daemon that opens the volume as a client that comes back, and hands it on: fio's own client does not come back. */
const handedOn = async (folder: string, image: string): Promise<string> => {
  const socket = join(folder, "handed-on");
  const server = [
    "--nbd-server",
    `addr.type=unix,addr.path=${socket}`,
    "--export",
    "nbd,id=e,node-name=v,name=v,writable=on",
  ];
  const child = spawn("qemu-storage-daemon", ["--blockdev", `node-name=v,${image}`, ...server], { stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  const uri = `nbd+unix:///v?socket=${socket}`;
  for (let attempt = 0; attempt < 100; attempt++) {
    if ((await sizeOf(uri).catch(() => 0)) > 0) return uri;
    await sleep(20);
  }
  throw new Error("the volume is not handed on");
};

test("with write-through and a snapshot below, what was answered is there after each death of the daemon, without a flush", async () => {
  const host = await started();
  const volumeId = await host.newVolume(64 * MIB);
  const { socketPath, exportName } = await exportOnSocket(host, volumeId, true);
  await host.host.createSnapshot(volumeId, randomUUID());
  const uri = await handedOn(host.folder, reconnecting(socketPath, exportName));
  const what = [
    "--rw=randwrite",
    "--bs=4k",
    "--iodepth=8",
    "--size=64M",
    "--io_size=24M",
    "--rate_iops=,900",
    "--end_fsync=0",
  ];
  const checks = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"];
  const load = run("fio", ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, ...what, ...checks], { cwd: "/tmp" });
  const kills = async (): Promise<void> => {
    for (let round = 0; round < 5; round++) {
      await sleep(700);
      const pid = await host.daemonOf(volumeId);
      process.kill(pid, "SIGKILL");
      await untilServedBy(host, volumeId, pid);
      if (round % 2 === 0) await host.host.createSnapshot(volumeId, randomUUID());
    }
  };
  await Promise.all([load, kills()]);
});

const layersOf = (host: HostProcess): number => {
  const text = readFileSync(join(host.folder, "block-host", "volumes.json"), "utf8");
  return (JSON.parse(text) as { layers: unknown[] }).layers.length;
};

const untilLayers = async (host: HostProcess, count: number): Promise<void> => {
  for (let attempt = 0; attempt < 600; attempt++) {
    if (layersOf(host) === count) return;
    await sleep(50);
  }
  throw new Error(`${layersOf(host)} layers are left, not ${count}`);
};

test("layers are merged under fio, also where the host is killed in the middle of it", async () => {
  const host = await started();
  const volumeId = await host.newVolume(64 * MIB);
  const { socketPath, exportName } = await exportOnSocket(host, volumeId);
  const load = fioVerify(uriOf({ kind: "nbd-unix", socketPath, exportName }), 64 * MIB, 500);
  const round = async (killAfterMs: number | undefined): Promise<void> => {
    const snapshots = [randomUUID(), randomUUID()];
    for (const snapshotId of snapshots) await host.host.createSnapshot(volumeId, snapshotId);
    for (const snapshotId of snapshots) await host.host.deleteSnapshot(volumeId, snapshotId);
    if (killAfterMs !== undefined) {
      await sleep(killAfterMs);
      await host.kill();
      await host.start();
    }
    await untilLayers(host, 1);
  };
  const rounds = async (): Promise<void> => {
    for (const killAfterMs of [undefined, 150, 300, 450]) await round(killAfterMs);
  };
  await Promise.all([load, rounds()]);
});

test("a daemon that is killed while it merges loses nothing that was answered with write-through", async () => {
  const host = await started();
  const volumeId = await host.newVolume(48 * MIB);
  const exported = await exportOnSocket(host, volumeId, true);
  const file = join(host.folder, "bytes");
  const bytes = randomBytes(48 * MIB);
  writeFileSync(file, bytes);
  const copy = copyInto(file, reconnecting(exported.socketPath, exported.exportName), 6);
  for (let round = 0; round < 8; round++) {
    const snapshotId = randomUUID();
    await host.host.createSnapshot(volumeId, snapshotId);
    await sleep(200);
    await host.host.deleteSnapshot(volumeId, snapshotId);
    await sleep(60 + round * 40);
    const pid = await host.daemonOf(volumeId);
    process.kill(pid, "SIGKILL");
    await untilServedBy(host, volumeId, pid);
  }
  await copy;
  await untilLayers(host, 1);
  expect((await readFrom(uriOf(exported))).equals(bytes)).toBe(true);
});

test("a volume grows under a client that comes back", async () => {
  const host = await started();
  const volumeId = await host.newVolume(32 * MIB);
  const exported = await exportOnSocket(host, volumeId);
  const file = join(host.folder, "bytes");
  const bytes = randomBytes(32 * MIB);
  writeFileSync(file, bytes);
  const copy = copyInto(file, reconnecting(exported.socketPath, exported.exportName), 12);
  for (const sizeMib of [40, 48]) {
    await sleep(600);
    await host.newVolume(8 * MIB);
    await host.host.extendVolume(volumeId, sizeMib * MIB);
    expect(await sizeOf(uriOf(exported))).toBe(sizeMib * MIB);
  }
  await copy;
  const all = await readFrom(uriOf(exported));
  expect(all.subarray(0, 32 * MIB).equals(bytes)).toBe(true);
  expect(all.subarray(32 * MIB).equals(Buffer.alloc(16 * MIB))).toBe(true);
});

test("what was flushed before host and daemon were killed is there after a start", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const exported = await exportOnSocket(host, volumeId);
  const bytes = randomBytes(2 * MIB);
  await writeTo(uriOf(exported), 5 * MIB, bytes);
  const pid = await host.daemonOf(volumeId);
  await host.kill();
  process.kill(pid, "SIGKILL");
  await host.start();
  expect((await readFrom(uriOf(exported))).subarray(5 * MIB, 7 * MIB).equals(bytes)).toBe(true);
  const written = JSON.parse(readFileSync(join(host.folder, "block-host", "exports.json"), "utf8")) as {
    daemons: { role: string; pid: number }[];
  };
  expect(written.daemons).toMatchObject([{ role: `export:${volumeId}`, pid: await host.daemonOf(volumeId) }]);
});
