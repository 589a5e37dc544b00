import { execFile } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { runWorkers, sleep } from "../../common/worker.ts";
import { volumeHostContract } from "../volume-host.contract.ts";
import { whyNoLvm } from "./drivers/lvm-pool.ts";
import { ExportRecords } from "./store/export-records.ts";
import { readFrom, sizeOf, TestHost, uriOf, writeTo } from "./test-host.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);
const obstacle = await whyNoLvm();

describe.each(["file", "lvm"] as const)("a host with a pool of kind %s", (pool) => {
  const isSkipped = pool === "lvm" && obstacle !== undefined;
  const opened = async (): Promise<TestHost> => {
    const fixture = new TestHost(pool);
    await fixture.open();
    return fixture;
  };

  describe.skipIf(isSkipped)("as any volume host", () => {
    volumeHostContract(async () => {
      const fixture = await opened();
      merging(fixture);
      return { host: fixture.host, pool };
    });
  });

  test.skipIf(isSkipped)("a new volume reads as zeros and keeps what is written to it", async () => {
    const fixture = await opened();
    const volumeId = await fixture.newVolume(8 * MIB);
    expect((await fixture.read(volumeId)).equals(Buffer.alloc(8 * MIB))).toBe(true);
    const bytes = randomBytes(MIB);
    await fixture.write(volumeId, 7 * MIB, bytes);
    await fixture.reopen();
    expect((await fixture.read(volumeId)).subarray(7 * MIB).equals(bytes)).toBe(true);
  });

  test.skipIf(isSkipped)("a snapshot keeps what was there, and a volume made of it goes its own way", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const volumeId = await fixture.newVolume(8 * MIB);
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 1));
    const [snapshotId, copyId] = [randomUUID(), randomUUID()];
    await host.createSnapshot(volumeId, snapshotId);
    await fixture.write(volumeId, 0, Buffer.alloc(MIB / 2, 2));
    const source = { kind: "snapshot", volumeId, snapshotId } as const;
    await host.createVolume({ volumeId: copyId, pool, sizeBytes: 12 * MIB, source });
    const copy = await fixture.read(copyId);
    expect(copy.length).toBe(12 * MIB);
    expect(copy.subarray(0, MIB).equals(Buffer.alloc(MIB, 1))).toBe(true);
    expect(copy.subarray(MIB).equals(Buffer.alloc(11 * MIB))).toBe(true);
    await fixture.write(copyId, MIB, Buffer.alloc(MIB, 3));
    const own = await fixture.read(volumeId);
    expect(own.subarray(0, MIB / 2).equals(Buffer.alloc(MIB / 2, 2))).toBe(true);
    expect(own.subarray(MIB / 2, MIB).equals(Buffer.alloc(MIB / 2, 1))).toBe(true);
    expect(own.subarray(MIB).equals(Buffer.alloc(7 * MIB))).toBe(true);
    await host.deleteSnapshot(volumeId, snapshotId);
    await host.deleteVolume(volumeId);
    expect((await fixture.read(copyId)).subarray(0, 2 * MIB)).toEqual(
      Buffer.concat([Buffer.alloc(MIB, 1), Buffer.alloc(MIB, 3)]),
    );
    await host.deleteVolume(copyId);
    expect(await fixture.layers()).toEqual({ inPool: [], recorded: [] });
  });

  test.skipIf(isSkipped)("a copy of a volume that is being written has what was acknowledged before", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const volumeId = await fixture.newVolume(8 * MIB);
    const copyId = randomUUID();
    await fixture.withExport(volumeId, async (uri) => {
      await writeTo(uri, 0, Buffer.alloc(MIB, 1));
      const source = { kind: "volume", volumeId } as const;
      await host.createVolume({ volumeId: copyId, pool, sizeBytes: 8 * MIB, source });
      await writeTo(uri, 0, Buffer.alloc(MIB, 2));
      expect((await readFrom(uri)).subarray(0, MIB).equals(Buffer.alloc(MIB, 2))).toBe(true);
    });
    expect((await fixture.read(copyId)).subarray(0, MIB).equals(Buffer.alloc(MIB, 1))).toBe(true);
    expect((await fixture.read(volumeId)).subarray(0, MIB).equals(Buffer.alloc(MIB, 2))).toBe(true);
  });

  test.skipIf(isSkipped)("a volume reverts to its latest snapshot", async () => {
    const fixture = await opened();
    const volumeId = await fixture.newVolume(8 * MIB);
    const snapshotId = randomUUID();
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 1));
    await fixture.host.createSnapshot(volumeId, snapshotId);
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 2));
    await fixture.host.revertVolume(volumeId, snapshotId);
    expect((await fixture.read(volumeId)).subarray(0, MIB).equals(Buffer.alloc(MIB, 1))).toBe(true);
    const { inPool, recorded } = await fixture.layers();
    expect(inPool).toEqual(recorded);
    expect(recorded.length).toBe(2);
  });

  test.skipIf(isSkipped)(
    "a volume grows while it is served, with free space behind it and with a neighbour",
    async () => {
      const fixture = await opened();
      const volumeId = await fixture.newVolume(8 * MIB);
      await fixture.withExport(volumeId, async (uri) => {
        await writeTo(uri, 0, Buffer.alloc(MIB, 1));
        for (const sizeMib of [16, 24, 32]) {
          await fixture.host.extendVolume(volumeId, sizeMib * MIB);
          expect(await sizeOf(uri)).toBe(sizeMib * MIB);
          await writeTo(uri, (sizeMib - 1) * MIB, Buffer.alloc(MIB, sizeMib));
          // Takes what is behind it: the next time it cannot grow where it is.
          await fixture.newVolume(8 * MIB);
        }
      });
      await fixture.reopen();
      const all = await fixture.read(volumeId);
      for (const [at, byte] of [
        [0, 1],
        [15, 16],
        [23, 24],
        [31, 32],
      ] as const)
        expect(all.subarray(at * MIB, (at + 1) * MIB).equals(Buffer.alloc(MIB, byte))).toBe(true);
      expect(all.subarray(MIB, 15 * MIB).equals(Buffer.alloc(14 * MIB))).toBe(true);
    },
  );

  test.skipIf(isSkipped)(
    "a volume that was extended with a snapshot below it is as large when it is opened",
    async () => {
      const fixture = await opened();
      const volumeId = await fixture.newVolume(8 * MIB);
      await fixture.write(volumeId, 7 * MIB, Buffer.alloc(MIB, 1));
      await fixture.host.createSnapshot(volumeId, randomUUID());
      await fixture.host.extendVolume(volumeId, 24 * MIB);
      const all = await fixture.read(volumeId);
      expect(all.length).toBe(24 * MIB);
      expect(all.subarray(7 * MIB, 8 * MIB).equals(Buffer.alloc(MIB, 1))).toBe(true);
      expect(all.subarray(8 * MIB).equals(Buffer.alloc(16 * MIB))).toBe(true);
    },
  );

  const until = async (what: string, isSo: () => Promise<boolean>): Promise<void> => {
    for (let attempt = 0; attempt < 300; attempt++) {
      if (await isSo()) return;
      await sleep(50);
    }
    throw new Error(`it does not come about that ${what}`);
  };

  const merging = (fixture: TestHost): void => {
    const workers = runWorkers([fixture.host.merger()], { log: silentLog });
    onTestFinished(() => workers[Symbol.asyncDispose]());
  };

  /** Asks the records, not the pool: each question to LVM takes as long as a step of a merge. */
  const untilLayers = async (fixture: TestHost, count: number): Promise<void> => {
    const recorded = (): number =>
      (JSON.parse(readFileSync(fixture.paths.records, "utf8")) as { layers: [] }).layers.length;
    await until(`${count} layers are left`, async () => recorded() === count);
    expect((await fixture.layers()).inPool.length).toBe(count);
  };

  test.skipIf(isSkipped)(
    "a volume whose snapshots are deleted is one raw layer again, while it is not served",
    async () => {
      const fixture = await opened();
      const volumeId = await fixture.newVolume(8 * MIB);
      const snapshots = [randomUUID(), randomUUID(), randomUUID()];
      for (const [index, snapshotId] of snapshots.entries()) {
        await fixture.write(volumeId, index * MIB, Buffer.alloc(2 * MIB, index + 1));
        await fixture.host.createSnapshot(volumeId, snapshotId);
      }
      await fixture.write(volumeId, 7 * MIB, Buffer.alloc(MIB, 9));
      const expected = await fixture.read(volumeId);
      merging(fixture);
      for (const snapshotId of snapshots) await fixture.host.deleteSnapshot(volumeId, snapshotId);
      await untilLayers(fixture, 1);
      expect(await fixture.layers()).toMatchObject({ recorded: [expect.any(String)] });
      await until("no daemon is left", async () => new ExportRecords(fixture.paths.exportRecords).all.length === 0);
      expect((await fixture.read(volumeId)).equals(expected)).toBe(true);
      expect(readFileSync(fixture.paths.records, "utf8")).toContain('"format":"raw"');
    },
  );

  test.skipIf(isSkipped)("what lies between two snapshots that stay is merged, and they read as they did", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const volumeId = await fixture.newVolume(8 * MIB);
    const snapshots = [randomUUID(), randomUUID(), randomUUID(), randomUUID()] as const;
    await fixture.withExport(volumeId, async (uri) => {
      for (const [index, snapshotId] of snapshots.entries()) {
        await writeTo(uri, index * MIB, Buffer.alloc(2 * MIB, index + 1));
        await host.createSnapshot(volumeId, snapshotId);
      }
      await writeTo(uri, 0, Buffer.alloc(MIB, 9));
      merging(fixture);
      for (const snapshotId of [snapshots[1], snapshots[2]]) await host.deleteSnapshot(volumeId, snapshotId);
      await untilLayers(fixture, 3);
      await writeTo(uri, 6 * MIB, Buffer.alloc(MIB, 8));
    });
    for (const [snapshotId, bytes] of [
      [snapshots[0], [1, 1, 0, 0, 0, 0]],
      [snapshots[3], [1, 2, 3, 4, 4, 0]],
    ] as const) {
      const copyId = randomUUID();
      const source = { kind: "snapshot", volumeId, snapshotId } as const;
      await host.createVolume({ volumeId: copyId, pool, sizeBytes: 8 * MIB, source });
      const copy = await fixture.read(copyId);
      expect(Array.from({ length: 6 }, (_, at) => copy[at * MIB])).toEqual(bytes);
    }
    const own = await fixture.read(volumeId);
    expect(Array.from({ length: 7 }, (_, at) => own[at * MIB])).toEqual([9, 2, 3, 4, 4, 0, 8]);
  });

  test.skipIf(isSkipped)("layers that a copy of the volume reads are not merged", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const volumeId = await fixture.newVolume(8 * MIB);
    await fixture.write(volumeId, 0, Buffer.alloc(2 * MIB, 1));
    const [snapshotId, copyId] = [randomUUID(), randomUUID()];
    await host.createSnapshot(volumeId, snapshotId);
    const source = { kind: "snapshot", volumeId, snapshotId } as const;
    await host.createVolume({ volumeId: copyId, pool, sizeBytes: 8 * MIB, source });
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 2));
    await host.deleteSnapshot(volumeId, snapshotId);
    merging(fixture);
    await sleep(500);
    expect((await fixture.layers()).inPool.length).toBe(3);
    expect((await fixture.read(copyId)).subarray(0, 2 * MIB).equals(Buffer.alloc(2 * MIB, 1))).toBe(true);
    await host.deleteVolume(copyId);
    await untilLayers(fixture, 1);
    expect((await fixture.read(volumeId)).subarray(0, MIB).equals(Buffer.alloc(MIB, 2))).toBe(true);
  });

  test.skipIf(isSkipped)("what a deleted volume held is in no new one", async () => {
    const fixture = await opened();
    const secret = randomBytes(32);
    const first = await fixture.newVolume(8 * MIB);
    await fixture.write(first, 0, Buffer.alloc(8 * MIB, secret));
    await fixture.host.createSnapshot(first, "00000000-0000-4000-8000-000000000001");
    await fixture.write(first, 0, Buffer.alloc(4 * MIB, secret));
    await fixture.host.deleteSnapshot(first, "00000000-0000-4000-8000-000000000001");
    await fixture.host.deleteVolume(first);
    for (let round = 0; round < 3; round++) {
      const next = await fixture.newVolume(8 * MIB);
      expect((await fixture.read(next)).equals(Buffer.alloc(8 * MIB))).toBe(true);
    }
    if (pool === "lvm")
      expect(
        readFileSync(fixture.paths.poolFile)
          .subarray(0, 128 * MIB)
          .includes(secret),
      ).toBe(false);
  });

  test.skipIf(isSkipped)(
    "what a client discards or writes zeros to reads as zeros, and its space is free again",
    async () => {
      const fixture = await opened();
      const volumeId = await fixture.newVolume(32 * MIB);
      const discarded = async (uri: string, command: string): Promise<void> => {
        await writeTo(uri, 0, randomBytes(24 * MIB));
        const before = await fixture.allocatedBytes();
        await run("qemu-io", ["-f", "raw", "-d", "unmap", "-c", `${command} 0 ${24 * MIB}`, "-c", "flush", uri]);
        expect(before - (await fixture.allocatedBytes())).toBeGreaterThan(20 * MIB);
        expect((await readFrom(uri)).equals(Buffer.alloc(32 * MIB))).toBe(true);
      };
      await fixture.withExport(volumeId, async (uri) => {
        for (const command of ["discard", "write -z -u"]) await discarded(uri, command);
        await fixture.host.createSnapshot(volumeId, randomUUID());
        for (const command of ["discard", "write -z -u"]) await discarded(uri, command);
      });
    },
  );

  test.skipIf(isSkipped)("an export is private, and a read-only one takes no writes", async () => {
    const fixture = await opened();
    const volumeId = await fixture.newVolume(8 * MIB);
    const wanted = { volumeId, attachmentId: randomUUID(), transport: "unix", isReadOnly: true } as const;
    const exported = await fixture.host.exportVolume(wanted);
    if (exported.kind !== "nbd-unix") throw new Error("a Unix socket was asked for");
    expect(statSync(exported.socketPath).mode & 0o777).toBe(0o600);
    expect(statSync(fixture.runtime.socketDir).mode & 0o777).toBe(0o700);
    await expect(writeTo(uriOf(exported), 0, Buffer.alloc(512, 1))).rejects.toThrow("Permission denied");
  });
});
