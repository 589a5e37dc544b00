import { randomBytes, randomUUID } from "node:crypto";
import { describe, expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../../common/log.ts";
import { runWorkers, sleep } from "../../../common/worker.ts";
import { type BackupContents, createBackupContents } from "../../backup/backup-contents.ts";
import { BACKUP_PROJECT, testBackup } from "../../backup/test-backup.ts";
import { whyNoLvm } from "../drivers/lvm-pool.ts";
import { ExportRecords } from "../store/export-records.ts";
import { readFrom, TestHost, uriOf, writeTo } from "../test-host.ts";

const MIB = 1024 * 1024;
const BACKUP_BYTES = 24 * MIB;
const SIZE_BYTES = 32 * MIB;
const LIMIT_MS = 60_000;
const obstacle = await whyNoLvm();

describe.each(["file", "lvm"] as const)("a volume of a pool of kind %s that is restored while it is used", (pool) => {
  const isSkipped = pool === "lvm" && obstacle !== undefined;

  /** A host with a volume that has something else, and a backup. */
  const prepared = async (
    change: (contents: BackupContents) => BackupContents = (contents) => contents,
    options: { readonly backupPatienceMs?: number } = {},
  ) => {
    const bytes = randomBytes(16 * MIB);
    bytes.fill(0, 3 * MIB, 5 * MIB);
    const { objects, store, backupId } = await testBackup(bytes, BACKUP_BYTES);
    const fixture = new TestHost(pool, { backups: change(createBackupContents(() => store)), ...options });
    await fixture.open();
    const volumeId = await fixture.newVolume(SIZE_BYTES);
    await fixture.write(volumeId, 0, Buffer.alloc(SIZE_BYTES, 9));
    const restorationId = randomUUID();
    const wanted = { volumeId, restorationId, projectId: BACKUP_PROJECT, backupId, sizeBytes: BACKUP_BYTES };
    const expected = Buffer.concat([bytes, Buffer.alloc(SIZE_BYTES - bytes.length)]);
    return { fixture, objects, volumeId, backupId, wanted, expected };
  };

  const work = (fixture: TestHost): AsyncDisposable => {
    const workers = runWorkers([fixture.host.merger()], { log: silentLog });
    onTestFinished(() => workers[Symbol.asyncDispose]());
    return workers;
  };

  const untilFilled = async (fixture: TestHost, backupId: string): Promise<void> => {
    const deadline = performance.now() + LIMIT_MS;
    for (;;) {
      const { isFilled, damage } = await fixture.host.data.restoration(backupId);
      if (isFilled) return;
      if (performance.now() > deadline) throw new Error(`it is not filled: ${damage ?? "it is being copied"}`);
      await sleep(10);
    }
  };

  const killDaemon = (fixture: TestHost, volumeId: string): void => {
    const record = new ExportRecords(fixture.paths.exportRecords).of(volumeId);
    if (record !== undefined && record.pid > 1) process.kill(record.pid, "SIGKILL");
  };

  test.skipIf(isSkipped)(
    "reads as the backup at once, keeps what is written, and needs it no more in the end",
    async () => {
      const { fixture, objects, volumeId, backupId, wanted, expected } = await prepared();
      await fixture.host.data.restore(wanted);
      const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
      const uri = uriOf(await fixture.host.exportVolume(attachment));
      // Nobody fills it yet: all of it comes from the backup.
      expect((await readFrom(uri)).equals(expected)).toBe(true);
      await writeTo(uri, 7 * MIB - 4096, Buffer.alloc(8192, 3));
      expected.fill(3, 7 * MIB - 4096, 7 * MIB + 4096);
      expect(await fixture.host.data.restoration(backupId)).toMatchObject({ isFilled: false, damage: undefined });
      const workers = work(fixture);
      await untilFilled(fixture, backupId);
      objects.objects.clear();
      killDaemon(fixture, volumeId);
      await workers[Symbol.asyncDispose]();
      await fixture.reopen();
      expect((await readFrom(uri)).equals(expected)).toBe(true);
      // Asked again by whoever had no answer: what was written since stays.
      await fixture.host.unexportVolume(volumeId, attachment.attachmentId);
      await fixture.host.data.restore(wanted);
      expect((await fixture.read(volumeId)).equals(expected)).toBe(true);
      const { inPool, recorded } = await fixture.layers();
      expect(inPool).toEqual(recorded);
      expect(recorded.length).toBe(1);
    },
  );

  test.skipIf(isSkipped)("goes on whenever its daemon is killed or its host begins anew", async () => {
    const { fixture, volumeId, backupId, wanted, expected } = await prepared();
    await fixture.host.data.restore(wanted);
    const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
    const uri = uriOf(await fixture.host.exportVolume(attachment));
    for (let round = 0; round < 5; round++) {
      const workers = work(fixture);
      await sleep(round * 30);
      await workers[Symbol.asyncDispose]();
      if (round % 2 === 0) killDaemon(fixture, volumeId);
      await fixture.reopen();
      await writeTo(uri, round * 3 * MIB, Buffer.alloc(4096, round + 1));
      expected.fill(round + 1, round * 3 * MIB, round * 3 * MIB + 4096);
      expect((await readFrom(uri)).equals(expected)).toBe(true);
    }
    work(fixture);
    await untilFilled(fixture, backupId);
    expect((await readFrom(uri)).equals(expected)).toBe(true);
    await fixture.host.unexportVolume(volumeId, attachment.attachmentId);
  });

  test.skipIf(isSkipped)(
    "gives an error where a chunk is damaged, never other bytes, and says which it is",
    async () => {
      const { fixture, objects, volumeId, backupId, wanted, expected } = await prepared();
      const chunks = [...objects.objects.keys()].filter((path) => path.includes("/chunks/"));
      const damaged = chunks[2];
      if (damaged === undefined) throw new Error("the backup has chunks");
      objects.objects.delete(damaged);
      await fixture.host.data.restore(wanted);
      work(fixture);
      const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
      const uri = uriOf(await fixture.host.exportVolume(attachment));
      // QEMU closes the connection whose read failed, and serves the next one.
      await expect(readFrom(uri)).rejects.toThrow("command failed");
      const deadline = performance.now() + LIMIT_MS;
      let damage: string | undefined;
      while (damage === undefined && performance.now() < deadline) {
        ({ damage } = await fixture.host.data.restoration(backupId));
        await sleep(10);
      }
      expect(damage).toContain(damaged.slice(damaged.lastIndexOf("/") + 1));
      // The rest of it can be read, and all of it can be written anew.
      await writeTo(uri, 0, Buffer.alloc(SIZE_BYTES, 4));
      expect((await readFrom(uri)).equals(Buffer.alloc(expected.length, 4))).toBe(true);
      await fixture.host.unexportVolume(volumeId, attachment.attachmentId);
      await fixture.host.deleteVolume(volumeId);
      expect(await fixture.layers()).toEqual({ inPool: [], recorded: [] });
    },
  );

  test.skipIf(isSkipped)("is as it was where the backup is not there, is larger, or somebody has it open", async () => {
    const { fixture, objects, volumeId, wanted } = await prepared();
    const { data } = fixture.host;
    const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: true } as const;
    await fixture.host.exportVolume(attachment);
    await expect(data.restore(wanted)).rejects.toMatchObject({ code: "volume-in-use" });
    await fixture.host.unexportVolume(volumeId);
    await expect(data.restore({ ...wanted, sizeBytes: MIB })).rejects.toMatchObject({ code: "backup-damaged" });
    objects.objects.clear();
    const unknown = { ...wanted, backupId: randomUUID() };
    await expect(data.restore(unknown)).rejects.toMatchObject({ code: "backup-damaged" });
    const missing = { ...wanted, volumeId: randomUUID() };
    await expect(data.restore(missing)).rejects.toMatchObject({ code: "no-such-volume" });
    expect((await fixture.read(volumeId)).equals(Buffer.alloc(SIZE_BYTES, 9))).toBe(true);
  });

  test.skipIf(isSkipped)("has snapshots before it is filled, and copies when it is", async () => {
    const { fixture, objects, volumeId, backupId, wanted, expected } = await prepared();
    const { host } = fixture;
    await host.data.restore(wanted);
    const [snapshotId, copyId] = [randomUUID(), randomUUID()];
    await host.createSnapshot(volumeId, snapshotId);
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 5));
    const before = await host.data.read({ volumeId, snapshotId, offset: 2 * MIB, length: MIB });
    expect(before.equals(expected.subarray(2 * MIB, 3 * MIB))).toBe(true);
    await host.data.release(volumeId, snapshotId);
    // It is filled with what reads through it, and nothing would any more.
    const again = { ...wanted, restorationId: randomUUID() };
    await expect(host.data.restore(again)).rejects.toMatchObject({ code: "snapshot-filling" });
    for (const source of [{ kind: "snapshot", volumeId, snapshotId } as const, { kind: "volume", volumeId } as const]) {
      const copy = host.createVolume({ volumeId: copyId, pool, sizeBytes: SIZE_BYTES, source });
      await expect(copy).rejects.toMatchObject({ code: "source-filling" });
    }
    work(fixture);
    await untilFilled(fixture, backupId);
    objects.objects.clear();
    const source = { kind: "snapshot", volumeId, snapshotId } as const;
    await host.createVolume({ volumeId: copyId, pool, sizeBytes: SIZE_BYTES, source });
    expect((await fixture.read(copyId)).equals(expected)).toBe(true);
    expected.fill(5, 0, MIB);
    expect((await fixture.read(volumeId)).equals(expected)).toBe(true);
  });

  test.skipIf(isSkipped)("is snapshot and cut off while the object store does not answer", async () => {
    let isHung = false;
    const hung = Promise.withResolvers<never>();
    const isAsked = Promise.withResolvers<void>();
    const change = (contents: BackupContents): BackupContents => ({
      ...contents,
      read: async (...asked) => {
        if (!isHung) return contents.read(...asked);
        isAsked.resolve();
        return hung.promise;
      },
    });
    const { fixture, volumeId, backupId, wanted, expected } = await prepared(change, { backupPatienceMs: 2_000 });
    const { host } = fixture;
    await host.data.restore(wanted);
    isHung = true;
    const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
    const uri = uriOf(await host.exportVolume(attachment));
    const workers = work(fixture);
    const reading = readFrom(uri).catch((error: unknown) => error);
    await isAsked.promise;
    // Both wait for what the daemon has under way, which is no longer than anybody waits for the object store.
    const snapshotId = randomUUID();
    await host.createSnapshot(volumeId, snapshotId);
    await host.unexportVolume(volumeId, attachment.attachmentId);
    expect(await reading).toBeInstanceOf(Error);
    await workers[Symbol.asyncDispose]();
    isHung = false;
    await fixture.reopen();
    work(fixture);
    await untilFilled(fixture, backupId);
    expect((await fixture.read(volumeId)).equals(expected)).toBe(true);
  });
});
