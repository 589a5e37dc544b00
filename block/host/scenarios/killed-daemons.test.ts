import { execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { isEverything } from "../../../scripts/scenarios/is-everything.ts";
import type { VolumeExport } from "../../volume-host.ts";
import { sizeOf, uriOf } from "../test-host.ts";
import { HostProcess } from "./host-process.ts";
import { QemuSession } from "./qemu-session.ts";

/*
 * A volume's daemon is killed, and its client comes back to the next one without noticing: what the client was told to be written has to be
 * there, also where it flushes only afterwards, at a daemon that never had it.
 */
const MIB = 1024 * 1024;
const ROUNDS = isEverything ? 20 : 5;
const WRITES_PER_SECOND = 400;
const run = promisify(execFile);

const started = async (): Promise<HostProcess> => {
  const host = new HostProcess();
  onTestFinished(() => host[Symbol.asyncDispose]());
  await host.start();
  return host;
};

/** Kills the volume's daemon; resolves once the next one serves. */
const killDaemon = async (host: HostProcess, volumeId: string): Promise<void> => {
  const before = await host.daemonOf(volumeId);
  process.kill(before, "SIGKILL");
  for (let attempt = 0; attempt < 1500; attempt++) {
    if ((await host.daemonOf(volumeId).catch(() => before)) !== before) return;
    await sleep(20);
  }
  throw new Error("the daemon was not started again");
};

type Transport = "unix" | "tcp" | "iscsi";

const exported = (host: HostProcess, volumeId: string, transport: Transport, isWriteThrough = false) =>
  host.host.exportVolume({ volumeId, attachmentId: randomUUID(), transport, isReadOnly: false, isWriteThrough });

test("over iSCSI what was answered is read back after the daemon was killed just upon a snapshot, though it was flushed at the next one", async () => {
  const host = await started();
  const volumeId = await host.newVolume(32 * MIB);
  const session = new QemuSession(uriOf(await exported(host, volumeId, "iscsi")));
  await session.ask("write -P 255 0 32M");
  await session.ask("flush");
  const ways = [
    (round: number): readonly [string, string] => [`write -P ${round} ${round}M 4k`, `read -P ${round} ${round}M 4k`],
    (round: number): readonly [string, string] => [
      `write -f -P ${round} ${round}M 8k`,
      `read -P ${round} ${round}M 8k`,
    ],
    (round: number): readonly [string, string] => [`write -z -u ${round}M 64k`, `read -P 0 ${round}M 64k`],
    (round: number): readonly [string, string] => [`discard ${round}M 4k`, `read -P 0 ${round}M 4k`],
  ];
  for (const [round, way] of ways.entries()) {
    const [change, check] = way(round + 1);
    await host.host.createSnapshot(volumeId, randomUUID());
    await session.ask(change);
    await killDaemon(host, volumeId);
    await session.ask("flush");
    await session.ask(check);
    await session.ask(`read -P 255 ${16 + round}M 1M`);
  }
});

test("over iSCSI what is discarded reads as zeros at once, also less of it than an overlay gives back", async () => {
  const host = await started();
  const volumeId = await host.newVolume(16 * MIB);
  const session = new QemuSession(uriOf(await exported(host, volumeId, "iscsi")));
  await session.ask("write -P 255 0 16M");
  await session.ask("flush");
  await host.host.createSnapshot(volumeId, randomUUID());
  for (const [change, place] of [
    ["discard", "1M 4k"],
    ["discard", "2M 512"],
    ["write -z -u", "3M 4k"],
    ["write -z -u", "4095k 66k"],
    ["write -z", "6M 12k"],
  ]) {
    await session.ask(`${change} ${place}`);
    await session.ask(`read -P 0 ${place}`);
  }
  await session.ask("read -P 255 1028k 4k");
  await session.ask("read -P 255 2049k 512");
});

/**
 * The volume as a client has it that comes back by itself, asks again what was not answered, and writes with FUA where `isSynchronous`, as O_SYNC does.
 * A daemon of QEMU's, since fio's own client does not come back.
 */
const handedOn = async (folder: string, opened: VolumeExport, isSynchronous: boolean): Promise<string> => {
  const socket = join(folder, "handed-on");
  const [objects, image] = clientOf(folder, opened);
  const words = [
    ...objects.flatMap((object) => ["--object", object]),
    "--blockdev",
    `node-name=v,${image}`,
    "--nbd-server",
    `addr.type=unix,addr.path=${socket}`,
    "--export",
    `nbd,id=e,node-name=v,name=v,writable=on,writethrough=${isSynchronous ? "on" : "off"}`,
  ];
  const child = spawn("qemu-storage-daemon", words, { stdio: ["ignore", "ignore", "inherit"] });
  onTestFinished(() => void child.kill("SIGKILL"));
  const uri = `nbd+unix:///v?socket=${socket}`;
  for (let attempt = 0; attempt < 500; attempt++) {
    if ((await sizeOf(uri).catch(() => 0)) > 0) return uri;
    await sleep(20);
  }
  throw new Error("the volume is not handed on");
};

const clientOf = (folder: string, opened: VolumeExport): readonly [readonly string[], string] => {
  if (opened.kind === "nbd-unix") {
    const { socketPath, exportName } = opened;
    return [[], `driver=nbd,server.type=unix,server.path=${socketPath},export=${exportName},reconnect-delay=60`];
  }
  const where = (host: string, port: number): string => `server.type=inet,server.host=${host},server.port=${port}`;
  if (opened.kind === "nbd-tls") {
    const { host, port, exportName, credentialFolder } = opened;
    const keys = `tls-creds-psk,id=keys,endpoint=client,dir=${credentialFolder},username=${exportName}`;
    return [[keys], `driver=nbd,${where(host, port)},export=${exportName},tls-creds=keys,reconnect-delay=60`];
  }
  const secret = join(folder, "secret");
  writeFileSync(secret, opened.secret, { mode: 0o600 });
  const login = `user=${opened.username},password-secret=chap`;
  const target = `transport=tcp,portal=${opened.host}:${opened.port},target=${opened.targetName},lun=${opened.diskNumber}`;
  return [[`secret,id=chap,file=${secret}`], `driver=iscsi,${target},${login}`];
};

/** Writes each block once in an order of its own, then reads all of them; rejects with what fio says where one differs. */
const fioVerify = (uri: string, sizeBytes: number): Promise<unknown> => {
  const what = ["--rw=randwrite", "--bs=4k", "--iodepth=8", `--size=${sizeBytes}`, `--fsync=32`];
  const pace = [`--rate_iops=,${WRITES_PER_SECOND}`, "--end_fsync=0"];
  const checks = ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"];
  return run("fio", ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, ...what, ...pace, ...checks], { cwd: "/tmp" });
};

test.each<[string, Transport, boolean, boolean]>([
  ["NBD, each write with FUA", "unix", false, true],
  ["NBD, write-through", "unix", true, false],
  ["NBD in TLS, each write with FUA", "tcp", false, true],
  ["iSCSI, each write with FUA", "iscsi", false, true],
  ["iSCSI, flushed now and then", "iscsi", false, false],
])(
  "%s: no block differs after the daemon was killed again and again under fio, just upon snapshots and between",
  async (...row) => {
    const [, transport, isWriteThrough, isSynchronous] = row;
    // QEMU's client waits longer from one attempt over TCP to the next.
    const rounds = transport === "tcp" && !isEverything ? 2 : ROUNDS;
    const host = await started();
    const volumeId = await host.newVolume(2 * rounds * MIB);
    const uri = await handedOn(host.folder, await exported(host, volumeId, transport, isWriteThrough), isSynchronous);
    let isOver = false;
    const load = fioVerify(uri, 2 * rounds * MIB).finally(() => (isOver = true));
    const kills = async (): Promise<number> => {
      let count = 0;
      for (; count < rounds && !isOver; count++) {
        await sleep(Math.random() * 600);
        // The chain has its limit; a snapshot that is under way when the daemon dies is asked for again.
        if (count % 3 !== 1 && count < 24) {
          const snapshotId = randomUUID();
          const taken = host.host.createSnapshot(volumeId, snapshotId);
          if (count % 3 === 0) await taken;
          await killDaemon(host, volumeId);
          await taken.catch(() => host.host.createSnapshot(volumeId, snapshotId));
        } else await killDaemon(host, volumeId);
      }
      return count;
    };
    const [count] = await Promise.all([kills(), load]);
    expect(count).toBe(rounds);
  },
);
