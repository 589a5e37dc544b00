import { randomBytes, randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { startTimeOf } from "../../common/process-identity.ts";
import { runWorkers, sleep } from "../../common/worker.ts";
import { contractBackup, volumeDataContract } from "../volume-data.contract.ts";
import { whyNoLvm } from "./drivers/lvm-pool.ts";
import { TestHost, uriOf, writeTo } from "./test-host.ts";

const MIB = 1024 * 1024;
const obstacle = await whyNoLvm();

describe.each(["file", "lvm"] as const)("backups of a host with a pool of kind %s", (pool) => {
  const isSkipped = pool === "lvm" && obstacle !== undefined;
  const opened = async (): Promise<TestHost> => {
    const fixture = new TestHost(pool);
    await fixture.open();
    return fixture;
  };
  const readerPids = (fixture: TestHost): readonly number[] =>
    existsSync(fixture.paths.readersFolder)
      ? readdirSync(fixture.paths.readersFolder).map((name) =>
          Number(readFileSync(join(fixture.paths.readersFolder, name, "pid"), "utf8")),
        )
      : [];

  describe.skipIf(isSkipped)("as any volume host", () => {
    volumeDataContract(async () => {
      const { backup, contents } = await contractBackup();
      const fixture = new TestHost(pool, { backups: contents });
      const host = await fixture.open();
      const workers = runWorkers([host.merger()], { log: silentLog });
      onTestFinished(() => workers[Symbol.asyncDispose]());
      return { host, data: host.data, pool, backup, write: (id, offset, bytes) => fixture.write(id, offset, bytes) };
    });
  });

  test.skipIf(isSkipped)("layers stay what they are while a snapshot is read, and are merged afterwards", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const { data } = host;
    await using _ = runWorkers([host.merger()], { log: silentLog });
    const volumeId = await fixture.newVolume(16 * MIB);
    const [first, second, third] = [randomUUID(), randomUUID(), randomUUID()];
    const contents = [randomBytes(MIB), randomBytes(MIB), randomBytes(MIB)] as const;
    for (const [index, id] of [first, second, third].entries()) {
      await fixture.write(volumeId, index * 4 * MIB, contents[index] ?? Buffer.alloc(0));
      await host.createSnapshot(volumeId, id);
    }
    const read = (offset: number) => data.read({ volumeId, snapshotId: third, offset, length: MIB });
    expect((await read(0)).equals(contents[0])).toBe(true);
    const before = (await fixture.layers()).recorded.length;
    await host.deleteSnapshot(volumeId, first);
    await host.deleteSnapshot(volumeId, second);
    // The merger looks ten times a second: had it not been told, it would have begun.
    for (let look = 0; look < 10; look++) {
      expect((await read(8 * MIB)).equals(contents[2])).toBe(true);
      await sleep(50);
    }
    expect((await fixture.layers()).recorded).toHaveLength(before);
    await data.release(volumeId, third);
    for (let waited = 0; (await fixture.layers()).recorded.length > 2; waited += 20) {
      if (waited > 30_000) throw new Error("layers are not merged");
      await sleep(20);
    }
    for (const [index, bytes] of contents.entries()) expect((await read(index * 4 * MIB)).equals(bytes)).toBe(true);
  });

  test.skipIf(isSkipped)("a client goes on writing while a snapshot of its volume is read", async () => {
    const fixture = await opened();
    const { host } = fixture;
    const volumeId = await fixture.newVolume(16 * MIB);
    const [attachmentId, first, second] = [randomUUID(), randomUUID(), randomUUID()];
    const uri = uriOf(await host.exportVolume({ volumeId, attachmentId, transport: "unix", isReadOnly: false }));
    await writeTo(uri, 0, Buffer.alloc(MIB, 1));
    await host.createSnapshot(volumeId, first);
    await writeTo(uri, MIB, Buffer.alloc(MIB, 2));
    await host.createSnapshot(volumeId, second);
    const asked = { volumeId, snapshotId: second, offset: 0, length: 4 * MIB };
    expect(await host.data.changes({ ...asked, baseId: first, length: 16 * MIB })).toEqual({
      isRecorded: true,
      coveredBytes: 16 * MIB,
      extents: [{ offset: MIB, length: MIB, isZero: false }],
    });
    await writeTo(uri, 0, Buffer.alloc(4 * MIB, 3));
    const bytes = await host.data.read(asked);
    expect(bytes.equals(Buffer.concat([Buffer.alloc(MIB, 1), Buffer.alloc(MIB, 2), Buffer.alloc(2 * MIB)]))).toBe(true);
    await host.unexportVolume(volumeId, attachmentId);
  });

  test.skipIf(isSkipped)("dropping a snapshot ends whoever reads it, and so does the host's end", async () => {
    const fixture = await opened();
    const { data } = fixture.host;
    const volumeId = await fixture.newVolume(16 * MIB);
    const [first, second] = [randomUUID(), randomUUID()];
    for (const id of [first, second]) await fixture.host.createSnapshot(volumeId, id);
    const read = (snapshotId: string) => data.read({ volumeId, snapshotId, offset: 0, length: 512 });
    await read(first);
    await read(second);
    expect(readerPids(fixture)).toHaveLength(2);
    await fixture.host.deleteSnapshot(volumeId, first);
    const [left = 0, ...others] = readerPids(fixture);
    expect([others, startTimeOf(left) === undefined]).toEqual([[], false]);
    await expect(read(first)).rejects.toMatchObject({ code: "no-such-snapshot" });
    await fixture.reopen();
    expect([readerPids(fixture), startTimeOf(left)]).toEqual([[], undefined]);
  });

  test.skipIf(isSkipped)("a session of who says nothing more ends by itself, and with the host's process", async () => {
    const fixture = new TestHost(pool, { writerIdleMs: 200 });
    await fixture.open();
    const volumeId = await fixture.newVolume(16 * MIB);
    const writer = { volumeId, writerId: randomUUID() };
    const untilFree = async (): Promise<void> => {
      for (let waited = 0; (await fixture.host.exports()).length > 0; waited += 20) {
        if (waited > 30_000) throw new Error("the volume stays open");
        await sleep(20);
      }
    };
    await fixture.host.data.begin(writer);
    await untilFree();
    await expect(fixture.host.data.flush(writer)).rejects.toMatchObject({ code: "writer-lost" });
    await fixture.host.data.begin(writer);
    await fixture.reopen();
    expect(await fixture.host.exports()).toEqual([]);
    await fixture.host.deleteVolume(volumeId);
  });

  test.skipIf(isSkipped)("a reader that dies is replaced at the next question", async () => {
    const fixture = await opened();
    const { data } = fixture.host;
    const volumeId = await fixture.newVolume(16 * MIB);
    const snapshotId = randomUUID();
    await fixture.write(volumeId, 0, Buffer.alloc(MIB, 9));
    await fixture.host.createSnapshot(volumeId, snapshotId);
    const read = () => data.read({ volumeId, snapshotId, offset: 0, length: MIB });
    await read();
    const [pid = 0] = readerPids(fixture);
    process.kill(pid, "SIGKILL");
    let bytes: Buffer | undefined;
    for (let attempt = 0; bytes === undefined && attempt < 100; attempt++) bytes = await read().catch(() => undefined);
    expect(bytes?.equals(Buffer.alloc(MIB, 9))).toBe(true);
    expect(readerPids(fixture)).not.toContain(pid);
  });
});
