import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { sleep } from "../common/worker.ts";
import type { NewVolume, VolumeHost } from "./volume-host.ts";

const MIB = 1024 * 1024;
const FLATTEN_LIMIT_MS = 60_000;
const NONE = { kind: "none" } as const;

export type HostFixture = {
  readonly host: VolumeHost;
  readonly pool: string;
};

/** What every volume host does. `make` opens an empty one with room for 512 MiB and registers its removal. */
export const volumeHostContract = (make: () => Promise<HostFixture>): void => {
  const made = async ({ host, pool }: HostFixture, sizeBytes = 16 * MIB, source: NewVolume["source"] = NONE) => {
    const volumeId = randomUUID();
    await host.createVolume({ volumeId, pool, sizeBytes, source });
    return volumeId;
  };

  const provisioned = async ({ host, pool }: HostFixture) => {
    const report = (await host.pools()).find((one) => one.pool === pool);
    return [report?.volumeCount, report?.provisionedBytes];
  };

  test("a volume counts in its pool from its creation to its deletion", async () => {
    const fixture = await make();
    expect(await provisioned(fixture)).toEqual([0, 0]);
    const volumeId = await made(fixture);
    expect(await provisioned(fixture)).toEqual([1, 16 * MIB]);
    await fixture.host.deleteVolume(volumeId);
    expect(await provisioned(fixture)).toEqual([0, 0]);
  });

  test("each call that is made again answers as it did, and does nothing more", async () => {
    const fixture = await make();
    const { host, pool } = fixture;
    const [volumeId, snapshotId, attachmentId] = [randomUUID(), randomUUID(), randomUUID()];
    const wanted = { volumeId, pool, sizeBytes: 16 * MIB, source: NONE };
    await host.createVolume(wanted);
    await host.createVolume(wanted);
    await host.extendVolume(volumeId, 32 * MIB);
    await host.extendVolume(volumeId, 32 * MIB);
    await host.createSnapshot(volumeId, snapshotId);
    await host.createSnapshot(volumeId, snapshotId);
    const attachment = { volumeId, attachmentId, transport: "unix", isReadOnly: false } as const;
    const first = await host.exportVolume(attachment);
    expect(await host.exportVolume(attachment)).toEqual(first);
    expect(await host.exports()).toMatchObject([{ volumeId, attachmentIds: [attachmentId] }]);
    expect(await provisioned(fixture)).toEqual([1, 32 * MIB]);
    for (const _ of [1, 2]) await host.unexportVolume(volumeId, attachmentId);
    expect(await host.exports()).toEqual([]);
    for (const _ of [1, 2]) await host.deleteSnapshot(volumeId, snapshotId);
    for (const _ of [1, 2]) await host.deleteVolume(volumeId);
    expect(await provisioned(fixture)).toEqual([0, 0]);
  });

  test("what the host never heard of can be deleted and unexported", async () => {
    const { host } = await make();
    const [volumeId, other] = [randomUUID(), randomUUID()];
    await host.deleteVolume(volumeId);
    await host.deleteSnapshot(volumeId, other);
    await host.unexportVolume(volumeId, other);
    expect(await host.exports()).toEqual([]);
  });

  test("what is not there is refused by its name", async () => {
    const { host, pool } = await make();
    const volumeId = randomUUID();
    const noSuch = { code: "no-such-volume" };
    await expect(host.extendVolume(volumeId, MIB)).rejects.toMatchObject(noSuch);
    await expect(host.createSnapshot(volumeId, randomUUID())).rejects.toMatchObject(noSuch);
    const attachment = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
    await expect(host.exportVolume(attachment)).rejects.toMatchObject(noSuch);
    const source = { kind: "volume", volumeId: randomUUID() } as const;
    const wanted = { volumeId, pool, sizeBytes: MIB, source };
    await expect(host.createVolume(wanted)).rejects.toMatchObject({ code: "no-such-source" });
  });

  test("a volume does not shrink, and none is smaller than its source", async () => {
    const fixture = await make();
    const volumeId = await made(fixture);
    const { host, pool } = fixture;
    await expect(host.extendVolume(volumeId, 8 * MIB)).rejects.toMatchObject({ code: "volume-shrinks" });
    const source = { kind: "volume", volumeId } as const;
    const smaller = host.createVolume({ volumeId: randomUUID(), pool, sizeBytes: 8 * MIB, source });
    await expect(smaller).rejects.toMatchObject({ code: "volume-shrinks" });
  });

  test("a copy is independent of its source in the end, and asking again finds it so", async () => {
    const fixture = await make();
    const { host, pool } = fixture;
    const volumeId = await made(fixture);
    const copyId = randomUUID();
    await host.createVolume({ volumeId: copyId, pool, sizeBytes: 16 * MIB, source: { kind: "volume", volumeId } });
    const deadline = performance.now() + FLATTEN_LIMIT_MS;
    while (!(await host.flattenVolume(copyId)).isFlat && performance.now() < deadline) await sleep(10);
    expect(await host.flattenVolume(copyId)).toEqual({ isFlat: true, copiedShare: 1, failure: undefined });
    await expect(host.flattenVolume(randomUUID())).rejects.toMatchObject({ code: "no-such-volume" });
    for (const id of [volumeId, copyId]) await host.deleteVolume(id);
    expect(await provisioned(fixture)).toEqual([0, 0]);
  });

  test("an exported volume is not deleted, and one with snapshots neither", async () => {
    const fixture = await make();
    const volumeId = await made(fixture);
    const { host } = fixture;
    const [attachmentId, snapshotId] = [randomUUID(), randomUUID()];
    await host.exportVolume({ volumeId, attachmentId, transport: "unix", isReadOnly: false });
    await expect(host.deleteVolume(volumeId)).rejects.toMatchObject({ code: "volume-in-use" });
    await host.unexportVolume(volumeId, attachmentId);
    await host.createSnapshot(volumeId, snapshotId);
    await expect(host.deleteVolume(volumeId)).rejects.toMatchObject({ code: "volume-in-use" });
    await host.deleteSnapshot(volumeId, snapshotId);
    await host.deleteVolume(volumeId);
  });

  test("more than the pool has is refused, and leaves nothing behind", async () => {
    const fixture = await make();
    const { host, pool } = fixture;
    const report = (await host.pools()).find((one) => one.pool === pool);
    if (report?.isThin !== false) return;
    const wanted = { volumeId: randomUUID(), pool, sizeBytes: report.totalBytes * 2, source: NONE };
    await expect(host.createVolume(wanted)).rejects.toMatchObject({ code: "pool-full" });
    expect((await host.pools()).find((one) => one.pool === pool)?.freeBytes).toBe(report.freeBytes);
    expect(await provisioned(fixture)).toEqual([0, 0]);
  });
};
