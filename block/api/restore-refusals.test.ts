import { randomBytes, randomUUID } from "node:crypto";
import { afterEach, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { at, listAt, PROJECT, TestBlock } from "../test-block.ts";

const MIB = 1024 * 1024;
const ADMIN = `admin:${PROJECT}`;

const started: TestBlock[] = [];
const start = async (): Promise<TestBlock> => {
  const block = await TestBlock.start();
  started.push(block);
  return block;
};
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

const restore = (block: TestBlock, backupId: string, wanted: object = {}) =>
  block.call("POST", `/backups/${backupId}/restore`, { body: { restore: wanted } });
const exportTo = (block: TestBlock, volumeId: string) =>
  block.host.exportVolume({ volumeId, attachmentId: volumeId, transport: "unix", isReadOnly: false });

/** A volume with something in it, and a backup of that. */
const backedUp = async (block: TestBlock) => {
  const volumeId = await block.createVolume();
  block.data.put(volumeId, 3 * MIB, randomBytes(MIB));
  return { volumeId, backupId: await block.createBackup(volumeId) };
};

it("a volume that an operator has open is neither restored to nor reverted", async () => {
  const block = await start();
  const { volumeId, backupId } = await backedUp(block);
  const snapshotId = await block.createSnapshot(volumeId);
  const before = block.data.content(volumeId);
  await exportTo(block, volumeId);
  for (const refused of [
    await restore(block, backupId, { volume_id: volumeId }),
    await block.act(volumeId, "revert", { snapshot_id: snapshotId }),
  ])
    expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("by an operator")]);
  expect(block.data.content(volumeId)).toEqual(before);
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.status")).toBe("available");
  await block.host.unexportVolume(volumeId, volumeId);
  expect((await restore(block, backupId, { volume_id: volumeId })).status).toBe(202);
  await block.until(volumeId, "available");
});

it("a volume with a connection that no attachment tells of is neither restored to nor reverted", async () => {
  const block = await start();
  const { volumeId, backupId } = await backedUp(block);
  const snapshotId = await block.createSnapshot(volumeId);
  const connector = { host: "host" };
  expect((await block.act(volumeId, "os-initialize_connection", { connector })).status).toBe(200);
  expect(await block.statusOf(volumeId)).toBe("available");
  for (const refused of [
    await restore(block, backupId, { volume_id: volumeId }),
    await block.act(volumeId, "revert", { snapshot_id: snapshotId }),
  ])
    expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("terminate these")]);
  expect((await block.act(volumeId, "os-terminate_connection", { connector })).status).toBe(202);
  expect((await restore(block, backupId, { volume_id: volumeId })).status).toBe(202);
  await block.until(volumeId, "available");
});

it("a volume that an operator opens before its restoration begins is not written to, and the restoration says so", async () => {
  const block = await start();
  const { volumeId, backupId } = await backedUp(block);
  const bytes = randomBytes(MIB);
  block.data.put(volumeId, 3 * MIB, bytes);
  block.data.intercept = async (method, moment) => {
    if (method === "begin" && moment === "before") await exportTo(block, volumeId);
  };
  expect((await restore(block, backupId, { volume_id: volumeId })).status).toBe(202);
  await block.until(volumeId, "error_restoring");
  expect(block.data.bytes(volumeId, 3 * MIB, MIB).equals(bytes)).toBe(true);
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.fail_reason")).toBe("it is exported");
});

it("while a volume is restored nobody else opens it", async () => {
  const block = await start();
  const { volumeId, backupId } = await backedUp(block);
  const refusals: unknown[] = [];
  block.data.intercept = async (method, moment) => {
    if (method === "begin" && moment === "after")
      await exportTo(block, volumeId).catch((error: unknown) => refusals.push((error as RingsteadError).code));
  };
  await restore(block, backupId, { volume_id: volumeId });
  await block.until(volumeId, "available");
  expect(refusals).toEqual(["volume-in-use"]);
});

it("a volume whose restoration was given up while its host was silent can be deleted", async () => {
  const block = new TestBlock();
  started.push(block);
  await block.start({ giveUpMs: 300 });
  const { volumeId, backupId } = await backedUp(block);
  block.data.intercept = (method) => {
    if (method === "write" || method === "end") throw new RingsteadError("rpc-unreachable", "the host is away");
  };
  await restore(block, backupId, { volume_id: volumeId });
  await block.until(volumeId, "error_restoring");
  expect(block.host.volumes.get(volumeId)?.exports.size).toBe(1);
  expect((await block.call("DELETE", `/volumes/${volumeId}`)).status).toBe(202);
  await block.until(volumeId, "gone");
  expect(block.host.volumes.size).toBe(0);
});

it("a backup is restored into a volume of the project's default type, and into none in the clear whose type is encrypted", async () => {
  const block = await start();
  const { backupId } = await backedUp(block);
  const newType = async (name: string) =>
    String(at(await block.asAdmin("POST", "/types", { volume_type: { name } }), "volume_type.id"));
  const makeDefault = (name: string) =>
    block.asAdmin("PUT", `/default-types/${PROJECT}`, { default_type: { volume_type: name } });
  await newType("own");
  expect((await makeDefault("own")).status).toBe(200);
  const made = await restore(block, backupId);
  const id = String(at(made, "restore.volume_id"));
  await block.until(id, "available");
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.volume_type")).toBe("own");
  const secret = await newType("secret");
  const encryption = { provider: "luks", control_location: "front-end", cipher: "aes-xts-plain64", key_size: 256 };
  expect((await block.asAdmin("POST", `/types/${secret}/encryption`, { encryption })).status).toBe(200);
  expect((await makeDefault("secret")).status).toBe(200);
  const volumes = listAt(await block.call("GET", "/volumes"), "volumes").length;
  expect((await restore(block, backupId)).status).toBe(501);
  expect(listAt(await block.call("GET", "/volumes"), "volumes")).toHaveLength(volumes);
  expect(at(await block.call("GET", `/backups/${backupId}`), "backup.status")).toBe("available");
});

it("a backup that is being deleted is not declared available again, and goes", async () => {
  const block = await start();
  const { backupId } = await backedUp(block);
  const removal = Promise.withResolvers<void>();
  block.objects.intercept = (method) => (method === "remove" ? removal.promise : undefined);
  expect((await block.call("DELETE", `/backups/${backupId}`)).status).toBe(202);
  for (const status of ["available", "error"]) {
    const body = { "os-reset_status": { status } };
    const refused = await block.call("POST", `/backups/${backupId}/action`, { body, token: ADMIN });
    expect([status, refused.status]).toEqual([status, 400]);
  }
  expect((await restore(block, backupId)).status).toBe(400);
  removal.resolve();
  await block.untilShown(`/backups/${backupId}`, "backup", "gone");
});

it("a record whose times no calendar has is refused when it is imported", async () => {
  const block = await start();
  const { backupId } = await backedUp(block);
  const exported = await block.asAdmin("GET", `/backups/${backupId}/export_record`);
  const text = Buffer.from(String(at(exported, "backup-record.backup_url")), "base64").toString();
  const importing = (change: object) => {
    const record = { ...(JSON.parse(text) as object), id: randomUUID(), ...change };
    const backup_url = Buffer.from(JSON.stringify(record)).toString("base64");
    return block.asAdmin("POST", "/backups/import_record", {
      "backup-record": { backup_service: "cinder.backup.drivers.ringstead", backup_url },
    });
  };
  const after = 253_402_300_800_000;
  for (const name of ["created_at_ms", "data_timestamp_ms"]) {
    expect((await importing({ [name]: after })).status).toBe(400);
    expect((await importing({ [name]: after - 1 })).status).toBe(201);
  }
  const listed = listAt(await block.call("GET", "/backups/detail"), "backups");
  expect(listed.map(({ created_at: created }) => created)).toContain("9999-12-31T23:59:59.999000");
});
