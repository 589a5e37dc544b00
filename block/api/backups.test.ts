import { randomBytes, randomUUID } from "node:crypto";
import { afterEach, expect, it } from "vitest";
import { silentLog } from "../../common/log.ts";
import { createMetrics } from "../../common/metrics.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import { resolveConfig, LOCAL_NODE } from "../../common/config.ts";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";
import { startBlock } from "../service.ts";

const started: TestBlock[] = [];
const start = async (): Promise<TestBlock> => {
  const block = await TestBlock.start();
  started.push(block);
  return block;
};
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

const MIB = 1024 * 1024;
const attach = async (block: TestBlock, id: string): Promise<void> => {
  const fields = { volume_uuid: id, instance_uuid: randomUUID(), connector: { host: "host" } };
  const answer = await block.call("POST", "/attachments", { body: { attachment: fields } });
  await block.call("POST", `/attachments/${String(at(answer, "attachment.id"))}/action`, {
    body: { "os-complete": {} },
  });
  await block.until(id, "in-use");
};
const make = (block: TestBlock, backup: object, token?: string) =>
  block.call("POST", "/backups", { body: { backup }, ...(token === undefined ? {} : { token }) });
const messageOf = (answer: { body: Readonly<Record<string, unknown>> }): unknown =>
  at(answer, `${Object.keys(answer.body)[0] ?? ""}.message`);

it("a backup is shown as each microversion shows it", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 0, randomBytes(MIB));
  const answer = await make(block, { volume_id: volumeId, name: "one", description: "first", metadata: { a: "b" } });
  expect(answer.status).toBe(202);
  const id = String(at(answer, "backup.id"));
  expect(answer.body).toEqual({
    backup: {
      id,
      name: "one",
      metadata: { a: "b" },
      links: [
        { rel: "self", href: expect.stringContaining(`/v3/backups/${id}`) },
        { rel: "bookmark", href: expect.stringContaining(`/backups/${id}`) },
      ],
    },
  });
  await block.untilShown(`/backups/${id}`, "backup", "available");
  const { body } = await block.call("GET", `/backups/${id}`);
  expect(body["backup"]).toMatchObject({
    id,
    name: "one",
    description: "first",
    status: "available",
    size: 1,
    object_count: 3,
    availability_zone: "nova",
    container: "volumebackups",
    fail_reason: null,
    volume_id: volumeId,
    snapshot_id: null,
    is_incremental: false,
    has_dependent_backups: false,
    metadata: { a: "b" },
    user_id: "33333333333333333333333333333333",
    encryption_key_id: null,
  });
  expect(body["backup"]).not.toHaveProperty("os-backup-project-attr:project_id");
  const old = await block.call("GET", `/backups/${id}`, { version: "volume 3.0", token: `admin:${PROJECT}` });
  for (const later of ["metadata", "user_id", "encryption_key_id", "os-backup-project-attr:project_id"])
    expect(old.body["backup"]).not.toHaveProperty(later);
  const ofAdmin = await block.asAdmin("GET", `/backups/${id}`);
  expect(ofAdmin.body["backup"]).toHaveProperty("os-backup-project-attr:project_id", PROJECT);
});

it("backups are listed with filters, pages, sort and a count", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  const ids: string[] = [];
  for (const name of ["a", "b", "c"])
    ids.push(await block.createBackup(volumeId, { name, container: name === "c" ? "box" : null, metadata: { name } }));
  const names = async (query: string) =>
    listAt(await block.call("GET", `/backups/detail?${query}`), "backups").map(({ name }) => name);
  expect(await names("")).toEqual(["c", "b", "a"]);
  expect(await names("sort=name:asc&limit=2")).toEqual(["a", "b"]);
  expect(await names(`sort=name:asc&marker=${ids[1]}`)).toEqual(["c"]);
  expect(await names("name=b")).toEqual(["b"]);
  expect(await names("container=box")).toEqual(["c"]);
  expect(await names(`volume_id=${randomUUID()}`)).toEqual([]);
  expect(await names("status=available&offset=2")).toEqual(["a"]);
  expect(await names(`metadata=${encodeURIComponent("{'name': 'a'}")}`)).toEqual(["a"]);
  const counted = await block.call("GET", "/backups?with_count=true&limit=1");
  expect(counted.body).toMatchObject({ count: 3, backups_links: [{ rel: "next" }] });
  expect(Object.keys(listAt(counted, "backups")[0] ?? {})).toEqual(["id", "name", "links"]);
  expect((await block.call("GET", "/backups?sort=nothing")).status).toBe(400);
});

it("an increment reads and sends what changed, shares the rest, and restores whole", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 5 * MIB, randomBytes(8 * MIB));
  const full = await block.createBackup(volumeId);
  const chunks = () => [...block.objects.objects.keys()].filter((path) => path.includes("/chunks/")).length;
  expect([block.data.readBytes, chunks()]).toEqual([8 * MIB, 8]);
  block.data.put(volumeId, 200 * MIB, randomBytes(MIB));
  block.data.put(volumeId, 5 * MIB, Buffer.alloc(MIB));
  const content = block.data.content(volumeId);
  const increment = await block.createBackup(volumeId, { incremental: true });
  expect([block.data.readBytes, chunks()]).toEqual([9 * MIB, 9]);
  expect(at(await block.call("GET", `/backups/${increment}`), "backup.is_incremental")).toBe(true);
  // What changed after it is no part of it.
  block.data.put(volumeId, 0, randomBytes(MIB));
  await block.call("DELETE", `/backups/${full}`);
  await block.untilShown(`/backups/${full}`, "backup", "gone");
  const restore = await block.call("POST", `/backups/${increment}/restore`, {
    body: { restore: { volume_id: volumeId } },
  });
  expect([restore.status, restore.body]).toEqual([
    202,
    { restore: { backup_id: increment, volume_id: volumeId, volume_name: null } },
  ]);
  await block.until(volumeId, "available");
  expect(block.data.content(volumeId)).toEqual(content);
});

it("where the host knows the earlier snapshot no more, everything is read and only what is new is sent", async () => {
  const block = await start();
  const volumeId = await block.createVolume({ size: 1 });
  block.data.put(volumeId, 0, randomBytes(2 * MIB));
  const first = await block.createBackup(volumeId);
  await block.host.deleteSnapshot(volumeId, first);
  block.data.put(volumeId, 9 * MIB, randomBytes(MIB));
  const before = block.objects.objects.size;
  const second = await block.createBackup(volumeId, { incremental: true });
  expect(block.data.readBytes).toBe((2 + 1024) * MIB);
  // A chunk, a page and the list.
  expect(block.objects.objects.size - before).toBe(3);
  const restored = at(
    await block.call("POST", `/backups/${second}/restore`, { body: { restore: {} } }),
    "restore.volume_id",
  );
  await block.until(String(restored), "available");
  expect(block.data.content(String(restored))).toEqual(block.data.content(volumeId));
});

it("an attached volume is backed up by force alone, and is in use afterwards", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  await attach(block, volumeId);
  const refused = await make(block, { volume_id: volumeId });
  expect([refused.status, messageOf(refused)]).toEqual([
    400,
    "Invalid volume: Backing up an in-use volume must use the force flag.",
  ]);
  await block.createBackup(volumeId, { force: true });
  expect(await block.statusOf(volumeId)).toBe("in-use");
});

it("a snapshot is backed up as it was, while its volume is not touched", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  const bytes = randomBytes(MIB);
  block.data.put(volumeId, 0, bytes);
  const snapshotId = await block.createSnapshot(volumeId);
  block.data.put(volumeId, 0, randomBytes(MIB));
  const backupId = await block.createBackup(volumeId, { snapshot_id: snapshotId });
  expect(at(await block.call("GET", `/snapshots/${snapshotId}`), "snapshot.status")).toBe("available");
  expect([...(block.host.volumes.get(volumeId)?.snapshots ?? [])]).toEqual([snapshotId]);
  const body = { volume: { backup_id: backupId } };
  const made = await block.call("POST", "/volumes", { body });
  const copyId = String(at(made, "volume.id"));
  await block.until(copyId, "available");
  expect(at(made, "volume.size")).toBe(1);
  expect(block.data.bytes(copyId, 0, MIB).equals(bytes)).toBe(true);
  expect((await make(block, { volume_id: copyId, snapshot_id: snapshotId })).status).toBe(404);
  const smaller = await block.call("POST", "/volumes", { body: { volume: { backup_id: backupId, size: 0 } } });
  expect(smaller.status).toBe(400);
});

it("a volume from a backup is nobody's before it has its content", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 0, randomBytes(MIB));
  const backupId = await block.createBackup(volumeId);
  const held = Promise.withResolvers<void>();
  const reached = Promise.withResolvers<void>();
  block.data.intercept = async (method, moment) => {
    if (method !== "begin" || moment !== "before") return;
    reached.resolve();
    await held.promise;
  };
  const made = await block.call("POST", "/volumes", { body: { volume: { backup_id: backupId, size: 2 } } });
  const copyId = String(at(made, "volume.id"));
  await reached.promise;
  expect(await block.statusOf(copyId)).toBe("restoring-backup");
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.status")).toBe("restoring");
  expect((await block.act(copyId, "os-reserve")).status).toBe(400);
  expect((await block.call("DELETE", `/backups/${backupId}`)).status).toBe(400);
  held.resolve();
  await block.until(copyId, "available");
  expect(block.host.volumes.get(copyId)?.sizeBytes).toBe(2048 * MIB);
});

it("what cannot be done is refused in Cinder's words", async () => {
  const block = await start();
  const volumeId = await block.createVolume({ size: 2 });
  const none = await make(block, { volume_id: volumeId, incremental: true });
  expect([none.status, messageOf(none)]).toEqual([
    400,
    "Invalid backup: No backups available to do an incremental backup.",
  ]);
  expect((await make(block, { volume_id: randomUUID() })).status).toBe(404);
  expect((await make(block, { volume_id: volumeId, incremental: "perhaps" })).status).toBe(400);
  expect((await make(block, { volume_id: volumeId, name: "n".repeat(256) })).status).toBe(400);
  expect((await make(block, { volume_id: volumeId, availability_zone: "elsewhere" })).status).toBe(400);
  expect((await make(block, {})).status).toBe(400);
  const backupId = await block.createBackup(volumeId);
  const small = await block.createVolume();
  const restore = (volume: string) =>
    block.call("POST", `/backups/${backupId}/restore`, { body: { restore: { volume_id: volume } } });
  expect(messageOf(await restore(small))).toBe(
    "Invalid volume: volume size 1 is too small to restore backup of size 2.",
  );
  await attach(block, volumeId);
  expect(messageOf(await restore(volumeId))).toBe("Invalid volume: Volume to be restored to must be available");
  expect((await block.call("PUT", `/backups/${backupId}`, { body: { backup: {} } })).status).toBe(400);
  expect(
    (await block.call("PUT", `/backups/${backupId}`, { version: "volume 3.8", body: { backup: {} } })).status,
  ).toBe(404);
  expect((await block.call("GET", "/backups/nothing")).status).toBe(404);
});

it("a backup is renamed, and its metadata replaced", async () => {
  const block = await start();
  const id = await block.createBackup(await block.createVolume(), { metadata: { a: "1" } });
  const change = { name: "new", description: null, metadata: { b: "2" } };
  const answer = await block.call("PUT", `/backups/${id}`, { body: { backup: change } });
  expect([answer.status, at(answer, "backup.name")]).toEqual([200, "new"]);
  const shown = await block.call("GET", `/backups/${id}`);
  expect(shown.body["backup"]).toMatchObject({ name: "new", description: null, metadata: { b: "2" } });
});

it("limits of backups and of their gigabytes hold, and what is used is told", async () => {
  const block = await start();
  const limits = (quota_set: object) => block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set });
  const volumeId = await block.createVolume({ size: 2 });
  await block.createBackup(volumeId);
  await limits({ backup_gigabytes: 3 });
  const size = await make(block, { volume_id: volumeId });
  expect([size.status, messageOf(size)]).toEqual([
    413,
    "VolumeBackupSizeExceedsAvailableQuota: Requested backup exceeds allowed Backup gigabytes quota. Requested 2G, quota is 3G and 2G has been consumed.",
  ]);
  expect(await block.statusOf(volumeId)).toBe("available");
  await limits({ backup_gigabytes: 30, backups: 1 });
  expect(messageOf(await make(block, { volume_id: volumeId }))).toBe(
    "BackupLimitExceeded: Maximum number of backups allowed (1) exceeded",
  );
  const usage = await block.call("GET", `/os-quota-sets/${PROJECT}?usage=true`);
  expect(at(usage, "quota_set.backups")).toEqual({ limit: 1, in_use: 1, reserved: 0 });
  expect((await block.call("GET", "/limits")).body).toMatchObject({
    limits: { absolute: { totalBackupsUsed: 1, totalBackupGigabytesUsed: 2, maxTotalBackups: 1 } },
  });
});

it("other projects learn nothing of a backup, readers change nothing, and only administrators force", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  const id = await block.createBackup(volumeId);
  const other = `member:${OTHER_PROJECT}`;
  const reader = `reader:${PROJECT}`;
  for (const [method, path] of [
    ["GET", `/backups/${id}`],
    ["DELETE", `/backups/${id}`],
  ] as const)
    expect((await block.call(method, path, { token: other })).status).toBe(404);
  const restore = { body: { restore: {} } };
  expect((await block.call("POST", `/backups/${id}/restore`, { ...restore, token: other })).status).toBe(404);
  expect(listAt(await block.call("GET", "/backups", { token: other }), "backups")).toEqual([]);
  expect((await block.call("GET", `/backups/${id}`, { token: reader })).status).toBe(200);
  expect((await block.call("POST", `/backups/${id}/restore`, { ...restore, token: reader })).status).toBe(403);
  expect((await make(block, { volume_id: volumeId }, reader)).status).toBe(403);
  const action = (body: object, token: string) => block.call("POST", `/backups/${id}/action`, { body, token });
  expect((await action({ "os-force_delete": {} }, `member:${PROJECT}`)).status).toBe(403);
  expect((await action({ "os-reset_status": { status: "error" } }, `admin:${PROJECT}`)).status).toBe(202);
  expect(at(await block.call("GET", `/backups/${id}`), "backup.status")).toBe("error");
  expect((await block.call("POST", `/backups/${id}/restore`, restore)).status).toBe(400);
  expect((await action({ "os-reset_status": { status: "creating" } }, `admin:${PROJECT}`)).status).toBe(400);
  expect((await action({ "os-nothing": {} }, `admin:${PROJECT}`)).status).toBe(400);
  expect((await action({ "os-force_delete": {} }, `admin:${PROJECT}`)).status).toBe(202);
  await block.untilShown(`/backups/${id}`, "backup", "gone");
});

it("a record says where a backup is, so that it is restored when the database has lost it", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 7 * MIB, randomBytes(MIB));
  const id = await block.createBackup(volumeId, { name: "kept", metadata: { a: "b" } });
  const exported = await block.asAdmin("GET", `/backups/${id}/export_record`);
  expect(exported.status).toBe(200);
  const again = await block.asAdmin("POST", "/backups/import_record", exported.body);
  expect([again.status, messageOf(again)]).toEqual([400, "Invalid backup: Backup already exists in database."]);
  const lost = await TestBlock.start();
  started.push(lost);
  for (const [path, object] of block.objects.objects) lost.objects.objects.set(path, object);
  const other = `admin:${OTHER_PROJECT}`;
  const imported = await lost.call("POST", "/backups/import_record", { body: exported.body, token: other });
  expect([imported.status, at(imported, "backup.id")]).toEqual([201, id]);
  const shown = await lost.call("GET", `/backups/${id}`, { token: other });
  expect(shown.body["backup"]).toMatchObject({ name: "kept", status: "available", size: 1, metadata: { a: "b" } });
  const restore = await lost.call("POST", `/backups/${id}/restore`, { body: { restore: {} }, token: other });
  const copyId = String(at(restore, "restore.volume_id"));
  const statusOf = async () => at(await lost.asAdmin("GET", `/volumes/${copyId}`), "volume.status");
  while ((await statusOf()) !== "available") expect(await statusOf()).not.toMatch(/^error/);
  expect(lost.data.content(copyId)).toEqual(block.data.content(volumeId));
  const bad = [
    { backup_service: "cinder.backup.drivers.swift", backup_url: "e30=" },
    { backup_service: "cinder.backup.drivers.ringstead", backup_url: "e30=" },
    { backup_service: "cinder.backup.drivers.ringstead", backup_url: "%%%" },
  ];
  for (const record of bad)
    expect((await lost.asAdmin("POST", "/backups/import_record", { "backup-record": record })).status).toBe(400);
  expect((await lost.call("POST", "/backups/import_record", { body: exported.body })).status).toBe(403);
});

it("a volume goes with what its backups left at the host, and comes back from the backup", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 0, randomBytes(MIB));
  const content = block.data.content(volumeId);
  const snapshotId = await block.createSnapshot(volumeId);
  const id = await block.createBackup(volumeId);
  expect((await block.act(volumeId, "revert", { snapshot_id: snapshotId })).status).toBe(202);
  await block.until(volumeId, "available");
  expect(block.host.volumes.get(volumeId)?.reversions).toBe(1);
  await block.createBackup(volumeId, { incremental: true });
  await block.call("DELETE", `/snapshots/${snapshotId}`);
  await block.untilShown(`/snapshots/${snapshotId}`, "snapshot", "gone");
  await block.call("DELETE", `/volumes/${volumeId}`);
  await block.until(volumeId, "gone");
  expect(block.host.volumes.size).toBe(0);
  const restore = await block.call("POST", `/backups/${id}/restore`, { body: { restore: { name: "back" } } });
  const copyId = String(at(restore, "restore.volume_id"));
  await block.until(copyId, "available");
  expect(at(await block.call("GET", `/volumes/${copyId}`), "volume.name")).toBe("back");
  expect(block.data.content(copyId)).toEqual(content);
});

it("without an object service a backup is refused in words, and nothing is left behind", async () => {
  const block = await start();
  const volumeId = await block.createVolume();
  await block.stop();
  const service = await startBlock({
    config: resolveConfig({}, block.folder, LOCAL_NODE, "host"),
    paths: runtimePaths(block.folder),
    clusterKey: Buffer.alloc(32),
    log: silentLog,
    metrics: createMetrics(),
    hosts: new Map([[LOCAL_NODE, block.host]]),
    port: 0,
    verifier: block.verifier,
  });
  try {
    const answer = await fetch(`http://127.0.0.1:${service.port}/v3/backups`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-auth-token": `member:${PROJECT}` },
      body: JSON.stringify({ backup: { volume_id: volumeId } }),
    });
    expect(answer.status).toBe(503);
    expect(await answer.text()).toContain("Backups need the object service");
  } finally {
    await service[Symbol.asyncDispose]();
  }
  await block.start();
  expect(await block.statusOf(volumeId)).toBe("available");
});

it("a restored volume has the name and the metadata of what was backed up, unless its owner gave it a name", async () => {
  const block = await start();
  const image = { image_id: "5f1d1f0a-0000-4000-8000-000000000009", image_name: "debian" };
  const described = { name: "books", description: "all of them", metadata: { shelf: "3", room: "a" } };
  const id = await block.createVolume({ size: 1, ...described });
  expect((await block.act(id, "os-set_image_metadata", { metadata: image })).status).toBe(200);
  const backupId = await block.createBackup(id);
  await block.call("PUT", `/volumes/${id}`, { body: { volume: { name: "later" } } });
  await block.call("PUT", `/volumes/${id}/metadata`, { body: { metadata: { shelf: "9", new: "b" } } });
  const restored = async (restore: object): Promise<unknown> => {
    const answer = await block.call("POST", `/backups/${backupId}/restore`, { body: { restore } });
    const volumeId = String(at(answer, "restore.volume_id"));
    await block.until(volumeId, "available");
    await block.untilShown(`/backups/${backupId}`, "backup", "available");
    return at(await block.call("GET", `/volumes/${volumeId}`), "volume");
  };
  const kept = { metadata: { shelf: "3", room: "a" }, volume_image_metadata: image, bootable: "true" };
  expect(await restored({})).toMatchObject({ ...kept, name: "books", description: "all of them" });
  expect(await restored({ name: "mine" })).toMatchObject({ ...kept, name: "mine" });
  // One that was there keeps its name; its metadata is the backup's.
  expect(await restored({ volume_id: id })).toMatchObject({ ...kept, name: "later", description: "all of them" });
  expect(at(await block.call("GET", `/volumes/${id}/metadata`), "metadata")).toEqual({ shelf: "3", room: "a" });
});
