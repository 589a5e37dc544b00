import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { databaseTable, PostgresFixture, whyNoPostgres } from "../common/sql/postgres-fixture.ts";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "./test-block.ts";

describe.skipIf(whyNoPostgres() !== undefined)("on PostgreSQL", () => {
  let server: PostgresFixture;
  let block: TestBlock;
  beforeAll(async () => {
    server = await PostgresFixture.start({ isDurable: false });
    block = await TestBlock.start({ database: databaseTable(server.folder) });
  });
  afterAll(async () => {
    await block[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  it("of 20 volumes made at once as many are taken as the limit says", async () => {
    await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { volumes: 7 } });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => block.call("POST", "/volumes", { body: { volume: { size: 1 } } })),
    );
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 202)).toHaveLength(7);
    expect(statuses.filter((status) => status === 413)).toHaveLength(13);
    for (const answer of answers.filter(({ status }) => status === 202)) {
      const id = String(at(answer, "volume.id"));
      await block.until(id, "available");
      expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(202);
      await block.until(id, "gone");
    }
    expect(block.host.volumes.size).toBe(0);
  });

  it("a volume grows, is attached and detached, and pages follow each other in any order", async () => {
    const ids: string[] = [];
    for (const [index, size] of [3, 1, 2].entries())
      ids.push(await block.createVolume({ size, name: `Page ${index}`, metadata: { page: String(index) } }));
    const [id = ""] = ids;
    await block.act(id, "os-extend", { new_size: 4 });
    await block.until(id, "available");
    const attachment = await block.call("POST", "/attachments", {
      body: { attachment: { volume_uuid: id, instance_uuid: id, connector: { host: "elsewhere" } } },
    });
    expect(attachment.status).toBe(200);
    const path = `/attachments/${String(at(attachment, "attachment.id"))}`;
    expect((await block.call("POST", `${path}/action`, { body: { "os-complete": null } })).status).toBe(204);
    expect((await block.call("DELETE", path)).status).toBe(200);
    const names: unknown[] = [];
    let marker = "";
    for (;;) {
      const page = listAt(await block.call("GET", `/volumes?limit=1&sort=size:desc,name:asc${marker}`), "volumes");
      names.push(...page.map((one) => one["name"]));
      if (page.length === 0) break;
      marker = `&marker=${String(page[0]?.["id"])}`;
    }
    expect(names).toEqual(["Page 0", "Page 2", "Page 1"]);
    expect(listAt(await block.call("GET", "/volumes/detail?name~=age+1&bootable=false"), "volumes")).toHaveLength(1);
    const found = await block.call("GET", `/volumes?metadata=${encodeURIComponent("{'page': '2'}")}`);
    expect(listAt(found, "volumes")).toHaveLength(1);
    expect(at(await block.call("GET", "/volumes/summary"), "volume-summary.total_size")).toBe(7);
  });

  it("types in use are kept, names are taken once", async () => {
    const made = await block.asAdmin("POST", "/types", { volume_type: { name: "gold" } });
    expect((await block.asAdmin("POST", "/types", { volume_type: { name: "gold" } })).status).toBe(409);
    const id = String(at(made, "volume_type.id"));
    await block.createVolume({ size: 1, volume_type: "gold" });
    expect((await block.asAdmin("DELETE", `/types/${id}`)).status).toBe(400);
  });

  it("a volume is backed up by its schedule, and the later backup takes the earlier one's place", async () => {
    const id = await block.createVolume({ size: 1, name: "scheduled" });
    const scheduled = async () =>
      listAt(await block.call("GET", `/backups/detail?volume_id=${id}&sort=created_at:asc`), "backups");
    let newest: unknown;
    for (let days = 1; days <= 2; days++) {
      // With another beat it is due at once.
      const body = { backup_schedule: { every_seconds: days * 86_400, keep: 1 } };
      expect((await block.call("PUT", `/volumes/${id}/backup-schedule`, { body })).status).toBe(200);
      await expect
        .poll(async () => (await scheduled()).filter((one) => one["id"] !== newest && one["status"] === "available"), {
          timeout: 30_000,
        })
        .toHaveLength(1);
      newest = (await scheduled()).at(-1)?.["id"];
      await block.until(id, "available");
    }
    await expect.poll(async () => (await scheduled()).map((one) => one["id"]), { timeout: 30_000 }).toEqual([newest]);
    expect((await block.call("DELETE", `/volumes/${id}/backup-schedule`)).status).toBe(204);
    await block.call("DELETE", `/backups/${String(newest)}`);
    await block.untilShown(`/backups/${String(newest)}`, "backup", "gone");
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
  });

  it("of snapshots taken at once as many are taken as the limit says, in an order, and the latest is reverted to", async () => {
    await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { volumes: 100, snapshots: 3 } });
    const volume = await block.createVolume({ size: 1 });
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        block.call("POST", "/snapshots", {
          body: { snapshot: { volume_id: volume, name: `s${index}`, metadata: { index: String(index) } } },
        }),
      ),
    );
    expect(answers.filter(({ status }) => status === 202)).toHaveLength(3);
    expect(answers.filter(({ status }) => status === 413)).toHaveLength(7);
    const query = `volume_id=${volume}&sort=created_at:asc&with_count=True`;
    const list = await block.call("GET", `/snapshots/detail?${query}`);
    const snapshots = listAt(list, "snapshots");
    expect([snapshots.length, list.body["count"]]).toEqual([3, 3]);
    for (const { id } of snapshots) await block.untilShown(`/snapshots/${String(id)}`, "snapshot", "available");
    expect([...(block.host.volumes.get(volume)?.snapshots ?? [])]).toEqual(snapshots.map(({ id }) => id));
    const page = await block.call("GET", `/snapshots?${query}&limit=1&marker=${String(snapshots[0]?.["id"])}`);
    expect(listAt(page, "snapshots")[0]?.["id"]).toBe(snapshots[1]?.["id"]);
    expect((await block.act(volume, "revert", { snapshot_id: snapshots[2]?.["id"] })).status).toBe(202);
    await block.until(volume, "available");
    expect(listAt(await block.call("GET", "/messages?limit=2"), "messages")).toHaveLength(2);
    expect((await block.call("DELETE", `/volumes/${volume}?cascade=True`)).status).toBe(202);
    await block.until(volume, "gone");
  });

  it("of backups asked for at once as many are made as the limit says; they are listed, restored, deleted and swept", async () => {
    const quota_set = { volumes: 100, snapshots: 100, backups: 2 };
    await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set });
    await block.start({ table: { backup_grace_seconds: 0 } });
    const ids = await Promise.all([1, 2, 3, 4].map(() => block.createVolume({ size: 1 })));
    for (const id of ids) block.data.put(id, 0, Buffer.alloc(100_000, 7));
    const answers = await Promise.all(
      ids.map((id) => block.call("POST", "/backups", { body: { backup: { volume_id: id, metadata: { of: id } } } })),
    );
    const made = answers.filter(({ status }) => status === 202).map((answer) => String(at(answer, "backup.id")));
    expect(made).toHaveLength(2);
    for (const id of made) await block.untilShown(`/backups/${id}`, "backup", "available");
    const listed = await block.call("GET", "/backups/detail?sort=created_at:asc&with_count=True&limit=1");
    const [first = {}] = listAt(listed, "backups");
    expect([listed.body["count"], first["size"], first["object_count"]]).toEqual([2, 1, 3]);
    const volumeId = String(first["volume_id"]);
    const query = encodeURIComponent(`{'of': '${volumeId}'}`);
    expect(listAt(await block.call("GET", `/backups?metadata=${query}`), "backups")).toHaveLength(1);
    const restore = { restore: { volume_id: volumeId } };
    block.data.put(volumeId, 0, Buffer.alloc(100_000, 8));
    expect((await block.call("POST", `/backups/${String(first["id"])}/restore`, { body: restore })).status).toBe(202);
    await block.until(volumeId, "available");
    expect(block.data.bytes(volumeId, 0, 100_000).equals(Buffer.alloc(100_000, 7))).toBe(true);
    for (const id of made) {
      await block.call("DELETE", `/backups/${id}`);
      await block.untilShown(`/backups/${id}`, "backup", "gone");
    }
    await vi.waitFor(() => expect(block.objects.objects.size).toBe(0), { timeout: 30_000 });
    for (const id of ids) {
      await block.call("DELETE", `/volumes/${id}`);
      await block.until(id, "gone");
    }
  });

  it("types have limits and encryption, volumes are offered and accepted, groups are snapshot and deleted", async () => {
    const type = await block.asAdmin("POST", "/types", { volume_type: { name: "silver" } });
    const typeId = String(at(type, "volume_type.id"));
    const qos = await block.asAdmin("POST", "/qos-specs", { qos_specs: { name: "slow", total_iops_sec: "10" } });
    const qosPath = `/qos-specs/${String(at(qos, "qos_specs.id"))}`;
    expect((await block.asAdmin("GET", `${qosPath}/associate?vol_type_id=${typeId}`)).status).toBe(202);
    expect((await block.asAdmin("DELETE", `${qosPath}?force=True`)).status).toBe(202);
    const encryption = { provider: "luks", control_location: "front-end" };
    expect((await block.asAdmin("POST", `/types/${typeId}/encryption`, { encryption })).status).toBe(200);
    expect((await block.asAdmin("DELETE", `/types/${typeId}/encryption/provider`)).status).toBe(202);
    const defaultType = { default_type: { volume_type: "silver" } };
    expect((await block.asAdmin("PUT", `/default-types/${PROJECT}`, defaultType)).status).toBe(200);
    expect((await block.asAdmin("PUT", `/default-types/${PROJECT}`, defaultType)).status).toBe(200);
    const groupType = await block.asAdmin("POST", "/group_types", {
      group_type: { name: "plain", group_specs: { "own:key": "1" } },
    });
    const made = await block.call("POST", "/groups", {
      body: { group: { group_type: at(groupType, "group_type.id"), volume_types: ["silver"] } },
    });
    const group = String(at(made, "group.id"));
    const volume = await block.createVolume({ size: 1, group_id: group });
    const taken = await block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: group } } });
    const path = `/group_snapshots/${String(at(taken, "group_snapshot.id"))}`;
    await block.untilShown(path, "group_snapshot", "available");
    expect((await block.call("DELETE", path)).status).toBe(202);
    await block.untilShown(path, "group_snapshot", "gone");
    await block.call("PUT", `/groups/${group}`, { body: { group: { remove_volumes: volume } } });
    const offer = await block.call("POST", "/volume-transfers", { body: { transfer: { volume_id: volume } } });
    const transfer = `/volume-transfers/${String(at(offer, "transfer.id"))}`;
    expect(listAt(await block.call("GET", "/volume-transfers/detail"), "transfers")).toHaveLength(1);
    const body = { accept: { auth_key: at(offer, "transfer.auth_key") } };
    expect((await block.call("POST", `${transfer}/accept`, { body, token: `member:${OTHER_PROJECT}` })).status).toBe(
      202,
    );
    expect(listAt(await block.asAdmin("GET", "/os-hosts/local@lvm"), "host").length).toBeGreaterThan(1);
    expect((await block.call("POST", `/groups/${group}/action`, { body: { delete: {} } })).status).toBe(202);
    expect((await block.asAdmin("DELETE", `/group_types/${String(at(groupType, "group_type.id"))}`)).status).toBe(202);
    expect((await block.asAdmin("DELETE", `/types/${typeId}`)).status).toBe(400);
  });
});
