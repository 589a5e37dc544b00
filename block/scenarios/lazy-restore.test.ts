import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { BackupCloud, digestFrom, writeTo } from "./backup-cloud.ts";

const cloud = new BackupCloud();
const MIB = 1024 * 1024;

beforeAll(() => cloud.up("lazy_restore = true"));
afterAll(() => cloud[Symbol.asyncDispose]());

it("a volume is used while it is filled from its backup, also through the death of everything, and reads as it did", async () => {
  const id = await cloud.newVolume();
  await cloud.write(id, [0, randomBytes(160 * MIB)], [700 * MIB, randomBytes(MIB)]);
  const whole = await cloud.digestOf(id);
  const backupId = await cloud.newBackup({ volume_id: id });
  await cloud.until(`/backups/${backupId}`, "available");
  const copyId = await cloud.restored(backupId);
  // It is not filled before everything is killed.
  cloud.stopObjects();
  expect(await cloud.statusOf(`/backups/${backupId}`)).toBe("restoring");
  const uri = await cloud.open(copyId);
  const later = randomBytes(MIB);
  await writeTo(uri, [900 * MIB, later]);
  await cloud.write(id, [900 * MIB, later]);
  await cloud.crash();
  expect(await cloud.statusOf(`/volumes/${copyId}`)).toBe("in-use");
  const changed = await cloud.digestOf(id);
  expect(changed).not.toBe(whole);
  // Who had it open goes on, whether it is filled by now or not; then it needs the backup no more.
  expect(await digestFrom(uri)).toBe(changed);
  await cloud.until(`/backups/${backupId}`, "available");
  await cloud.remove(`/backups/${backupId}`);
  expect(await digestFrom(uri)).toBe(changed);
  await cloud.close(copyId);
});
