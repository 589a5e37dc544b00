import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { runWorkers, sleep } from "../../common/worker.ts";
import { whyNoLvm } from "./drivers/lvm-pool.ts";
import { ExportRecords } from "./store/export-records.ts";
import { readFrom, TestHost, uriOf, writeTo } from "./test-host.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 32 * MIB;
const LIMIT_MS = 60_000;
const obstacle = await whyNoLvm();

describe.each(["file", "lvm"] as const)("a volume of a pool of kind %s that is made independent", (pool) => {
  const isSkipped = pool === "lvm" && obstacle !== undefined;

  /** A volume of random bytes, and a copy of a snapshot of it with bytes of its own. */
  const copied = async () => {
    const fixture = new TestHost(pool);
    const host = await fixture.open();
    const volumeId = await fixture.newVolume(SIZE_BYTES);
    const bytes = randomBytes(SIZE_BYTES);
    bytes.fill(0, 4 * MIB, 8 * MIB);
    await fixture.write(volumeId, 0, bytes.subarray(0, 4 * MIB));
    await fixture.write(volumeId, 8 * MIB, bytes.subarray(8 * MIB));
    const [snapshotId, copyId] = [randomUUID(), randomUUID()];
    await host.createSnapshot(volumeId, snapshotId);
    const source = { kind: "snapshot", volumeId, snapshotId } as const;
    await host.createVolume({ volumeId: copyId, pool, sizeBytes: SIZE_BYTES + 8 * MIB, source });
    const expected = Buffer.concat([bytes, Buffer.alloc(8 * MIB)]);
    return { fixture, volumeId, snapshotId, copyId, bytes, expected };
  };

  const work = (fixture: TestHost): AsyncDisposable => {
    const workers = runWorkers([fixture.host.merger()], { log: silentLog });
    onTestFinished(() => workers[Symbol.asyncDispose]());
    return workers;
  };

  const untilFlat = async (fixture: TestHost, volumeId: string): Promise<void> => {
    const deadline = performance.now() + LIMIT_MS;
    for (;;) {
      const { isFlat, failure } = await fixture.host.flattenVolume(volumeId);
      if (isFlat) return;
      if (performance.now() > deadline) throw new Error(`it is not independent: ${failure ?? "it is being copied"}`);
      await sleep(10);
    }
  };

  const killDaemon = (fixture: TestHost, volumeId: string): void => {
    const record = new ExportRecords(fixture.paths.exportRecords).of(volumeId);
    if (record !== undefined && record.pid > 1) process.kill(record.pid, "SIGKILL");
  };

  test.skipIf(isSkipped)("goes on alone when what it was made of is deleted", async () => {
    const { fixture, volumeId, snapshotId, copyId, bytes, expected } = await copied();
    work(fixture);
    await fixture.write(copyId, MIB, Buffer.alloc(MIB, 7));
    expected.fill(7, MIB, 2 * MIB);
    await untilFlat(fixture, copyId);
    expect((await fixture.read(copyId)).equals(expected)).toBe(true);
    expect((await fixture.read(volumeId)).equals(bytes)).toBe(true);
    await fixture.host.deleteSnapshot(volumeId, snapshotId);
    await fixture.host.deleteVolume(volumeId);
    const { inPool, recorded } = await fixture.layers();
    expect(inPool).toEqual(recorded);
    expect(recorded.length).toBe(1);
    expect((await fixture.read(copyId)).equals(expected)).toBe(true);
  });

  test.skipIf(isSkipped)(
    "serves its clients meanwhile, and keeps all that they write when its daemon is killed",
    async () => {
      const { fixture, copyId, expected } = await copied();
      const wanted = { volumeId: copyId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
      const uri = uriOf(await fixture.host.exportVolume(wanted));
      // Its lowest own layer is not its top: what is copied is two layers below what is written.
      await fixture.host.createSnapshot(copyId, randomUUID());
      await fixture.host.createSnapshot(copyId, randomUUID());
      let isOver = false;
      const writing = (async () => {
        for (let round = 0; !isOver; round++) {
          const at = (round % 9) * 4 * MIB + round * 512;
          const bytes = randomBytes(64 * 1024);
          await writeTo(uri, at, bytes);
          bytes.copy(expected, at);
        }
      })();
      work(fixture);
      await untilFlat(fixture, copyId);
      isOver = true;
      await writing;
      const recorded = JSON.parse(readFileSync(fixture.paths.records, "utf8")) as { layers: { base?: string }[] };
      expect(recorded.layers.filter(({ base }) => base === undefined).length).toBe(2);
      killDaemon(fixture, copyId);
      await fixture.reopen();
      expect((await readFrom(uri)).equals(expected)).toBe(true);
      await fixture.host.unexportVolume(copyId, wanted.attachmentId);
    },
  );

  test.skipIf(isSkipped)("has all that was copied on the disk when it is said to be alone", async () => {
    const { fixture, copyId, expected } = await copied();
    const wanted = { volumeId: copyId, attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
    const uri = uriOf(await fixture.host.exportVolume(wanted));
    // Nobody writes, and nobody flushes.
    work(fixture);
    await untilFlat(fixture, copyId);
    killDaemon(fixture, copyId);
    await fixture.reopen();
    expect((await readFrom(uri)).equals(expected)).toBe(true);
    await fixture.host.unexportVolume(copyId, wanted.attachmentId);
  });

  test.skipIf(isSkipped)(
    "reads as before whenever its daemon is killed or its host begins anew meanwhile",
    async () => {
      const { fixture, copyId, expected } = await copied();
      await fixture.host.flattenVolume(copyId);
      for (let round = 0; round < 8; round++) {
        const workers = work(fixture);
        // Each time a little later, from before the copy begins to after it has ended.
        await sleep(round * 40);
        await workers[Symbol.asyncDispose]();
        if (round % 2 === 0) killDaemon(fixture, copyId);
        await fixture.reopen();
        expect((await fixture.read(copyId)).equals(expected)).toBe(true);
      }
      work(fixture);
      await untilFlat(fixture, copyId);
      killDaemon(fixture, copyId);
      await fixture.reopen();
      expect((await fixture.read(copyId)).equals(expected)).toBe(true);
      expect((await fixture.layers()).inPool).toEqual((await fixture.layers()).recorded);
    },
  );
});
