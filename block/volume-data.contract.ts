import { randomBytes, randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { sleep } from "../common/worker.ts";
import { createBackupContents } from "./backup/backup-contents.ts";
import { BACKUP_PROJECT, testBackup } from "./backup/test-backup.ts";
import type { Restoration, VolumeData } from "./volume-data.ts";
import type { VolumeHost } from "./volume-host.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 64 * MIB;
const FILL_LIMIT_MS = 60_000;

/** A backup for fixtures, and what hosts read it with. */
export const contractBackup = async () => {
  const bytes = randomBytes(MIB);
  const sizeBytes = 16 * MIB;
  const { store, backupId } = await testBackup(bytes, sizeBytes);
  const backup = { projectId: BACKUP_PROJECT, backupId, sizeBytes, bytes };
  return { backup, contents: createBackupContents(() => store) };
};

export type DataFixture = {
  readonly host: VolumeHost;
  readonly data: VolumeData;
  readonly pool: string;
  /** As a client of the volume does, flushed. */
  write(volumeId: string, offset: number, bytes: Buffer): Promise<void>;
  /** That of `contractBackup`: these bytes, a MiB, then zeros. */
  readonly backup: Pick<Restoration, "projectId" | "backupId" | "sizeBytes"> & { readonly bytes: Buffer };
};

/** What every volume host does for backups. `make` opens an empty one with room for 512 MiB and registers its removal. */
export const volumeDataContract = (make: () => Promise<DataFixture>): void => {
  const made = async ({ host, pool }: DataFixture): Promise<string> => {
    const volumeId = randomUUID();
    await host.createVolume({ volumeId, pool, sizeBytes: SIZE_BYTES, source: { kind: "none" } });
    return volumeId;
  };

  /** Everything that is to be looked at, as far as the volume goes. */
  const changesOf = async ({ data }: DataFixture, volumeId: string, snapshotId: string, baseId?: string) => {
    const base = baseId === undefined ? {} : { baseId };
    let isRecorded = true;
    const touched = new Set<number>();
    const zeros = new Set<number>();
    for (let offset = 0; offset < SIZE_BYTES; ) {
      const answer = await data.changes({ volumeId, snapshotId, offset, length: SIZE_BYTES - offset, ...base });
      expect(answer.coveredBytes).toBeGreaterThan(0);
      isRecorded &&= answer.isRecorded;
      for (const extent of answer.extents)
        for (let mib = Math.floor(extent.offset / MIB); mib * MIB < extent.offset + extent.length; mib++)
          (extent.isZero ? zeros : touched).add(mib);
      offset += answer.coveredBytes;
    }
    return { isRecorded, touched: [...touched].toSorted((one, other) => one - other), zeros };
  };

  test("a snapshot tells where it is not zeros, and reads as the volume was", async () => {
    const fixture = await make();
    const volumeId = await made(fixture);
    const snapshotId = randomUUID();
    const bytes = randomBytes(2 * MIB);
    await fixture.write(volumeId, 5 * MIB, bytes);
    await fixture.host.createSnapshot(volumeId, snapshotId);
    await fixture.write(volumeId, 5 * MIB, Buffer.alloc(MIB, 7));
    const { touched, isRecorded } = await changesOf(fixture, volumeId, snapshotId);
    expect([isRecorded, touched]).toEqual([false, [5, 6]]);
    const read = (offset: number, length: number) => fixture.data.read({ volumeId, snapshotId, offset, length });
    expect((await read(5 * MIB, 2 * MIB)).equals(bytes)).toBe(true);
    expect((await read(6 * MIB + 4096, 4096)).equals(bytes.subarray(MIB + 4096, MIB + 8192))).toBe(true);
    expect((await read(SIZE_BYTES - MIB, MIB)).equals(Buffer.alloc(MIB))).toBe(true);
    await fixture.data.release(volumeId, snapshotId);
    await fixture.data.release(volumeId, snapshotId);
    expect((await read(5 * MIB, 2 * MIB)).equals(bytes)).toBe(true);
  });

  test("what was written since an earlier snapshot is told, and nothing far from it", async () => {
    const fixture = await make();
    const { host } = fixture;
    const volumeId = await made(fixture);
    const [first, second, third] = [randomUUID(), randomUUID(), randomUUID()];
    await fixture.write(volumeId, 0, Buffer.alloc(4 * MIB, 1));
    await host.createSnapshot(volumeId, first);
    await fixture.write(volumeId, 2 * MIB, Buffer.alloc(MIB, 2));
    await fixture.write(volumeId, 40 * MIB, Buffer.alloc(MIB, 3));
    await host.createSnapshot(volumeId, second);
    await fixture.write(volumeId, 50 * MIB, Buffer.alloc(MIB, 4));
    await host.createSnapshot(volumeId, third);
    expect(await changesOf(fixture, volumeId, second, first)).toMatchObject({ isRecorded: true, touched: [2, 40] });
    expect(await changesOf(fixture, volumeId, third, first)).toMatchObject({ isRecorded: true, touched: [2, 40, 50] });
    expect(await changesOf(fixture, volumeId, third, second)).toMatchObject({ isRecorded: true, touched: [50] });
    await host.deleteSnapshot(volumeId, first);
    expect(await changesOf(fixture, volumeId, third, second)).toMatchObject({ isRecorded: true, touched: [50] });
  });

  test("where the earlier snapshot is gone, everything is to be looked at", async () => {
    const fixture = await make();
    const volumeId = await made(fixture);
    const snapshotId = randomUUID();
    await fixture.host.createSnapshot(volumeId, snapshotId);
    const { isRecorded, touched } = await changesOf(fixture, volumeId, snapshotId, randomUUID());
    expect([isRecorded, touched.length]).toEqual([false, SIZE_BYTES / MIB]);
  });

  test("what is written in a session is in the volume once it was flushed, and the session's end leaves it free", async () => {
    const fixture = await make();
    const { host, data } = fixture;
    const volumeId = await made(fixture);
    await fixture.write(volumeId, 0, Buffer.alloc(8 * MIB, 1));
    const writer = { volumeId, writerId: randomUUID() };
    const bytes = randomBytes(MIB);
    await data.begin(writer);
    await data.begin(writer);
    await data.write(writer, 3 * MIB, bytes);
    await data.zero(writer, 4 * MIB, SIZE_BYTES - 4 * MIB);
    await data.flush(writer);
    for (const _ of [1, 2]) await data.end(writer);
    const snapshotId = randomUUID();
    await host.createSnapshot(volumeId, snapshotId);
    const read = (offset: number) => data.read({ volumeId, snapshotId, offset, length: MIB });
    expect((await read(2 * MIB)).equals(Buffer.alloc(MIB, 1))).toBe(true);
    expect((await read(3 * MIB)).equals(bytes)).toBe(true);
    expect((await read(5 * MIB)).equals(Buffer.alloc(MIB))).toBe(true);
    await host.deleteSnapshot(volumeId, snapshotId);
    await host.deleteVolume(volumeId);
  });

  test("a volume that somebody has open is not written anew, and one that is nobody else opens", async () => {
    const fixture = await make();
    const { host, data } = fixture;
    const volumeId = await made(fixture);
    const [attachmentId, writerId] = [randomUUID(), randomUUID()];
    const wanted = { volumeId, attachmentId, transport: "unix", isReadOnly: true } as const;
    await host.exportVolume(wanted);
    const inUse = { code: "volume-in-use" };
    await expect(data.begin({ volumeId, writerId })).rejects.toMatchObject(inUse);
    await host.unexportVolume(volumeId, attachmentId);
    await data.begin({ volumeId, writerId });
    await expect(host.exportVolume(wanted)).rejects.toMatchObject(inUse);
    await expect(data.begin({ volumeId, writerId: randomUUID() })).rejects.toMatchObject(inUse);
    // Whoever deletes the volume closes whatever is open.
    await host.unexportVolume(volumeId);
    await expect(data.flush({ volumeId, writerId })).rejects.toMatchObject({ code: "writer-lost" });
    await data.end({ volumeId, writerId });
    await host.exportVolume(wanted);
    await host.unexportVolume(volumeId);
    await host.deleteVolume(volumeId);
  });

  test("who did not begin, or has ended, writes nothing", async () => {
    const fixture = await make();
    const { data } = fixture;
    const volumeId = await made(fixture);
    const writer = { volumeId, writerId: randomUUID() };
    const lost = { code: "writer-lost" };
    await expect(data.write(writer, 0, Buffer.alloc(512))).rejects.toMatchObject(lost);
    await data.begin(writer);
    await data.end(writer);
    await expect(data.flush(writer)).rejects.toMatchObject(lost);
    await expect(data.zero(writer, 0, 512)).rejects.toMatchObject(lost);
  });

  test("a volume reads as a backup at once, again for who asks twice, and needs it no more in the end", async () => {
    const fixture = await make();
    const { host, data } = fixture;
    const volumeId = await made(fixture);
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 1));
    const wanted = { volumeId, restorationId: randomUUID(), ...fixture.backup };
    await data.restore(wanted);
    await fixture.write(volumeId, 2 * MIB, Buffer.alloc(MIB, 2));
    await data.restore(wanted);
    const deadline = performance.now() + FILL_LIMIT_MS;
    while (!(await data.restoration(wanted.backupId)).isFilled && performance.now() < deadline) await sleep(10);
    expect(await data.restoration(wanted.backupId)).toEqual({ isFilled: true, copiedShare: 1, damage: undefined });
    const snapshotId = randomUUID();
    await host.createSnapshot(volumeId, snapshotId);
    const read = (offset: number) => data.read({ volumeId, snapshotId, offset, length: MIB });
    expect((await read(0)).equals(fixture.backup.bytes)).toBe(true);
    expect((await read(2 * MIB)).equals(Buffer.alloc(MIB, 2))).toBe(true);
    expect((await read(3 * MIB)).equals(Buffer.alloc(MIB))).toBe(true);
    await host.deleteSnapshot(volumeId, snapshotId);
    const larger = { ...wanted, restorationId: randomUUID(), sizeBytes: SIZE_BYTES + MIB };
    await expect(data.restore(larger)).rejects.toMatchObject({
      code: expect.stringMatching(/^(backup-damaged|volume-shrinks)$/),
    });
    const unknown = { ...wanted, restorationId: randomUUID(), volumeId: randomUUID() };
    await expect(data.restore(unknown)).rejects.toMatchObject({ code: "no-such-volume" });
  });

  test("what is not there is refused by its name", async () => {
    const fixture = await make();
    const { data } = fixture;
    const asked = { volumeId: randomUUID(), snapshotId: randomUUID(), offset: 0, length: MIB };
    await expect(data.changes(asked)).rejects.toMatchObject({ code: "no-such-volume" });
    await expect(data.begin({ volumeId: randomUUID(), writerId: randomUUID() })).rejects.toMatchObject({
      code: "no-such-volume",
    });
    const volumeId = await made(fixture);
    await expect(data.read({ ...asked, volumeId })).rejects.toMatchObject({ code: "no-such-snapshot" });
  });
};
