import { randomBytes } from "node:crypto";
import { afterEach, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const MIB = 1024 * 1024;
const HOUR_MS = 3_600_000;

const started: TestBlock[] = [];
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

/** The service under a clock that goes as the real one does, and jumps when it is told. */
const start = async () => {
  const block = new TestBlock();
  started.push(block);
  let aheadMs = 0;
  const clock = { nowMs: () => Date.now() + aheadMs };
  await block.start({ clock, table: { backup_grace_seconds: 0 } });
  return { block, jump: (ms: number) => void (aheadMs += ms) };
};

const pathOf = (volumeId: string) => `/volumes/${volumeId}/backup-schedule`;
const put = (block: TestBlock, volumeId: string, schedule: object, token?: string) =>
  block.call("PUT", pathOf(volumeId), {
    body: { backup_schedule: schedule },
    ...(token === undefined ? {} : { token }),
  });
const HOURLY = { every_seconds: 3_600, keep: 2 };

const backupsOf = async (block: TestBlock, volumeId: string) =>
  listAt(await block.call("GET", `/backups/detail?volume_id=${volumeId}&sort=created_at:asc`), "backups").filter(
    ({ name }) => String(name).startsWith("scheduled-"),
  );
const until = async <Value>(look: () => Promise<Value>, wanted: (value: Value) => boolean): Promise<Value> => {
  for (let waited = 0; ; waited += 50) {
    const value = await look();
    if (wanted(value)) return value;
    if (waited > 30_000) throw new Error(`it stays ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
const untilNewest = (block: TestBlock, volumeId: string, before: unknown) =>
  until(
    () => backupsOf(block, volumeId),
    (backups) => backups.at(-1)?.["id"] !== before && backups.at(-1)?.["status"] === "available",
  );

it("a schedule makes a backup at once and then increments, keeps as many as it says, and touches no others", async () => {
  const { block, jump } = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 3 * MIB, randomBytes(MIB));
  const own = await block.createBackup(volumeId, { name: "own" });
  expect((await put(block, volumeId, HOURLY)).status).toBe(200);
  let newest: unknown;
  for (let hour = 0; hour < 4; hour++) {
    const backups = await untilNewest(block, volumeId, newest);
    newest = backups.at(-1)?.["id"];
    expect(backups.at(-1)?.["is_incremental"]).toBe(true);
    await block.until(volumeId, "available");
    block.data.put(volumeId, (10 + hour) * MIB, randomBytes(MIB));
    if (hour < 3) jump(HOUR_MS);
  }
  const kept = await until(
    () => backupsOf(block, volumeId),
    (backups) => backups.length === 2,
  );
  expect(kept.at(-1)?.["id"]).toBe(newest);
  const shown = await block.call("GET", pathOf(volumeId));
  expect(shown.body["backup_schedule"]).toMatchObject({ ...HOURLY, volume_id: volumeId, failure: null });
  expect(at(await block.call("GET", `/backups/${own}`), "backup.status")).toBe("available");
  const restore = await block.call("POST", `/backups/${String(newest)}/restore`, { body: { restore: {} } });
  const copyId = String(at(restore, "restore.volume_id"));
  await block.until(copyId, "available");
  expect(block.data.bytes(copyId, 12 * MIB, MIB).equals(block.data.bytes(volumeId, 12 * MIB, MIB))).toBe(true);
  expect(block.data.bytes(copyId, 13 * MIB, MIB).equals(Buffer.alloc(MIB))).toBe(true);
});

it("what was missed while nothing ran is made once and not made up for", async () => {
  const { block, jump } = await start();
  const volumeId = await block.createVolume();
  await put(block, volumeId, { every_seconds: 3_600, keep: 10 });
  const [first] = await untilNewest(block, volumeId, undefined);
  jump(10 * HOUR_MS);
  await untilNewest(block, volumeId, first?.["id"]);
  const due = String(at(await block.call("GET", pathOf(volumeId)), "backup_schedule.next_backup_at"));
  expect(Date.parse(`${due.slice(0, 23)}Z`) - Date.now()).toBeGreaterThan(10 * HOUR_MS);
  expect(await backupsOf(block, volumeId)).toHaveLength(2);
});

it("a backup that the quota does not allow is said, and tried when the next one is due", async () => {
  const { block, jump } = await start();
  const volumeId = await block.createVolume();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { backups: 0 } });
  await put(block, volumeId, HOURLY);
  const failure = await until(
    async () => at(await block.call("GET", pathOf(volumeId)), "backup_schedule.failure"),
    (words) => words !== null,
  );
  expect(failure).toContain("Maximum number of backups allowed (0) exceeded");
  expect(at(await block.call("GET", "/messages"), "messages.0.user_message")).toBe(
    "create backup:Not enough quota resource for operation.",
  );
  expect(await block.statusOf(volumeId)).toBe("available");
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { backups: 10 } });
  jump(HOUR_MS);
  await untilNewest(block, volumeId, undefined);
  expect(at(await block.call("GET", pathOf(volumeId)), "backup_schedule.failure")).toBeNull();
});

it("who repeats a schedule changes no time, another beat begins anew, and a later schedule has no earlier one's backups", async () => {
  const { block, jump } = await start();
  const volumeId = await block.createVolume();
  const due = async () => at(await block.call("GET", pathOf(volumeId)), "backup_schedule.next_backup_at");
  await put(block, volumeId, HOURLY);
  const [first] = await untilNewest(block, volumeId, undefined);
  await block.until(volumeId, "available");
  const before = await due();
  await put(block, volumeId, { ...HOURLY, keep: 3 });
  expect(await due()).toBe(before);
  expect((await block.call("DELETE", pathOf(volumeId))).status).toBe(204);
  jump(1000);
  await put(block, volumeId, { every_seconds: 7_200, keep: 1 });
  const [kept, second] = await untilNewest(block, volumeId, first?.["id"]);
  expect(kept?.["id"]).toBe(first?.["id"]);
  await block.until(volumeId, "available");
  await put(block, volumeId, { every_seconds: 3_600, keep: 1 });
  const later = await until(
    () => backupsOf(block, volumeId),
    (backups) =>
      backups.length === 2 && backups[1]?.["id"] !== second?.["id"] && backups[1]?.["status"] === "available",
  );
  expect(later[0]?.["id"]).toBe(first?.["id"]);
});

it("a schedule ends when it is taken back, with its volume, and when another project takes the volume; its backups stay", async () => {
  const { block, jump } = await start();
  const [taken, given, gone] = [await block.createVolume(), await block.createVolume(), await block.createVolume()];
  for (const id of [taken, given, gone]) {
    await put(block, id, HOURLY);
    await untilNewest(block, id, undefined);
    await block.until(id, "available");
  }
  expect((await block.call("DELETE", pathOf(taken))).status).toBe(204);
  expect((await block.call("DELETE", pathOf(taken))).status).toBe(404);
  await block.call("DELETE", `/volumes/${gone}`);
  await block.until(gone, "gone");
  const offer = await block.call("POST", "/volume-transfers", { body: { transfer: { volume_id: given } } });
  const accept = { accept: { auth_key: at(offer, "transfer.auth_key") } };
  const token = `member:${OTHER_PROJECT}`;
  const accepted = await block.call("POST", `/volume-transfers/${String(at(offer, "transfer.id"))}/accept`, {
    body: accept,
    token,
  });
  expect(accepted.status).toBe(202);
  jump(HOUR_MS);
  await until(
    async () => (await block.call("GET", pathOf(given), { token })).status,
    (status) => status === 404,
  );
  for (const id of [taken, given, gone]) expect(await backupsOf(block, id)).toHaveLength(1);
  expect(listAt(await block.call("GET", "/backups", { token }), "backups")).toEqual([]);
});

it("others learn nothing of a schedule, readers change none, and its figures have bounds", async () => {
  const { block } = await start();
  const volumeId = await block.createVolume();
  expect((await put(block, volumeId, HOURLY, `member:${OTHER_PROJECT}`)).status).toBe(404);
  expect((await put(block, volumeId, HOURLY, `reader:${PROJECT}`)).status).toBe(403);
  expect((await block.call("GET", pathOf(volumeId))).status).toBe(404);
  for (const wrong of [{ every_seconds: 59 }, { every_seconds: 1e9 }, { keep: 0 }, { keep: 1_001 }, { more: 1 }])
    expect((await put(block, volumeId, { ...HOURLY, ...wrong })).status).toBe(400);
  expect((await put(block, volumeId, HOURLY)).status).toBe(200);
  expect((await block.call("GET", pathOf(volumeId), { token: `reader:${PROJECT}` })).status).toBe(200);
  expect((await block.call("DELETE", pathOf(volumeId), { token: `reader:${PROJECT}` })).status).toBe(403);
});
