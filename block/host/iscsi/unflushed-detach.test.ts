import { randomBytes, randomUUID } from "node:crypto";
import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { startTimeOf } from "../../../common/process-identity.ts";
import { TestHost } from "../test-host.ts";

const MIB = 1024 * 1024;

/** A volume over iSCSI, of which bytes are written to the front's file and not flushed. */
const withUnflushed = async (bytes: Buffer) => {
  const fixture = new TestHost("file");
  await fixture.open();
  const volumeId = await fixture.newVolume(16 * MIB);
  const attachmentId = randomUUID();
  await fixture.host.exportVolume({ volumeId, attachmentId, transport: "iscsi", isReadOnly: false });
  // Upon a snapshot a daemon has what its overlay maps in memory alone.
  await fixture.host.createSnapshot(volumeId, randomUUID());
  const folder = join(fixture.paths.disksFolder, volumeId);
  const file = openSync(join(folder, "disk"), "r+");
  for (let at = 0; at < bytes.length; at += MIB) writeSync(file, bytes, at, Math.min(MIB, bytes.length - at), at);
  const mark = (): string => readFileSync(join(folder, "unflushed"), "utf8");
  return { fixture, volumeId, attachmentId, file, mark };
};

const pidOf = (fixture: TestHost, role: string): number => {
  const { daemons } = JSON.parse(readFileSync(fixture.paths.iscsiProcesses, "utf8")) as {
    daemons: { role: string; pid: number }[];
  };
  return daemons.find((one) => one.role === role)?.pid ?? 0;
};

const untilGone = async (pid: number): Promise<void> => {
  while (startTimeOf(pid) !== undefined) await sleep(5);
};

test("a front that is ended with writes that nobody flushed flushes them: its mark says clean", async () => {
  const { fixture, volumeId, file, mark } = await withUnflushed(randomBytes(MIB));
  closeSync(file);
  expect(mark()).not.toMatch(/ clean /);
  const [target, front] = [pidOf(fixture, "tgtd"), pidOf(fixture, `iscsi:${volumeId}`)];
  // In the order of an end of the installation: nobody has the file open then.
  process.kill(target, "SIGKILL");
  await untilGone(target);
  process.kill(front, "SIGTERM");
  await untilGone(front);
  expect(mark()).toMatch(/ clean /);
});

test("a disk that is detached with its daemon dead has all that was answered, however long the next daemon takes for it", async () => {
  const bytes = randomBytes(4 * MIB);
  const { fixture, volumeId, attachmentId, file, mark } = await withUnflushed(bytes);
  expect(mark()).not.toMatch(/ clean /);
  const pid = (await fixture.host.exports()).find((one) => one.volumeId === volumeId)?.pid ?? 0;
  process.kill(pid, "SIGKILL");
  await untilGone(pid);
  closeSync(file);
  await fixture.host.limitVolumes(new Map([[volumeId, { "bytes-total": 2 * MIB }]]));
  await fixture.host.unexportVolume(volumeId, attachmentId);
  await fixture.host.limitVolumes(new Map());
  expect((await fixture.read(volumeId)).subarray(0, bytes.length).equals(bytes)).toBe(true);
});
