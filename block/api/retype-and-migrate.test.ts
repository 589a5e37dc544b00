import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const ADMIN = `admin:${PROJECT}`;

let block: TestBlock;
let volume: string;
let serial = 0;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { volumes: 100 } });
});
beforeEach(async () => void (volume = await block.createVolume({ size: 2 })));
afterAll(() => block[Symbol.asyncDispose]());

const makeType = async (extraSpecs: object = {}): Promise<{ id: string; name: string }> => {
  serial += 1;
  const name = `type${serial}`;
  const made = await block.asAdmin("POST", "/types", { volume_type: { name, extra_specs: extraSpecs } });
  return { id: String(at(made, "volume_type.id")), name };
};
const retype = (name: string, policy = "never") =>
  block.act(volume, "os-retype", { new_type: name, migration_policy: policy });
const typeOf = async () => at(await block.call("GET", `/volumes/${volume}`), "volume.volume_type");

it("a volume has another type at once where its back-end serves both", async () => {
  const type = await makeType({ volume_backend_name: "lvm", multiattach: "<is> True" });
  expect((await retype(type.name)).status).toBe(202);
  expect(await typeOf()).toBe(type.name);
  expect(at(await block.call("GET", `/volumes/${volume}`), "volume.multiattach")).toBe(true);
  expect((await retype(type.name)).status).toBe(400);
  expect((await retype("nothing")).status).toBe(404);
  expect((await retype("__DEFAULT__", "sometimes")).status).toBe(400);
});

it("a volume that would have to move keeps its type, and its project is told", async () => {
  const type = await makeType({ volume_backend_name: "tape" });
  for (const policy of ["never", "on-demand"]) expect((await retype(type.name, policy)).status).toBe(202);
  expect(await typeOf()).toBe("__DEFAULT__");
  const told = listAt(await block.call("GET", `/messages?resource_uuid=${volume}`), "messages");
  expect(told).toHaveLength(2);
  expect(told[0]).toMatchObject({
    event_id: "VOLUME_VOLUME_001_003",
    user_message: "schedule allocate volume:Could not find any available weighted backend.",
  });
});

it("the volume and its snapshots move from one type's quota to the other's", async () => {
  const type = await makeType();
  await block.createSnapshot(volume);
  const limit = (limits: object) => block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: limits });
  await limit({ [`gigabytes_${type.name}`]: 3 });
  expect((await retype(type.name)).status).toBe(413);
  await limit({ [`gigabytes_${type.name}`]: 4, [`snapshots_${type.name}`]: 1, [`volumes_${type.name}`]: 1 });
  expect((await retype(type.name)).status).toBe(202);
  const usage = await block.call("GET", `/os-quota-sets/${PROJECT}?usage=True`);
  expect(at(usage, `quota_set.gigabytes_${type.name}.in_use`)).toBe(4);
  expect(at(usage, `quota_set.snapshots_${type.name}.in_use`)).toBe(1);
});

it("what users of an attached volume were told does not change under them", async () => {
  const [shared, limited] = [await makeType({ multiattach: "<is> True" }), await makeType()];
  const qos = await block.asAdmin("POST", "/qos-specs", {
    qos_specs: { name: limited.name, consumer: "front-end", total_iops_sec: "5" },
  });
  await block.asAdmin("GET", `/qos-specs/${String(at(qos, "qos_specs.id"))}/associate?vol_type_id=${limited.id}`);
  await block.act(volume, "os-attach", { host_name: "somewhere", mountpoint: "/dev/vdb" });
  expect((await retype(shared.name)).status).toBe(400);
  expect((await retype(limited.name)).status).toBe(400);
  expect((await retype((await makeType()).name)).status).toBe(202);
  await block.act(volume, "os-detach", {});
  expect((await retype(limited.name)).status).toBe(202);
});

it("a volume is not migrated to where it is, to where nobody is, or with snapshots", async () => {
  const migrate = (host: string, token = ADMIN) => block.act(volume, "os-migrate_volume", { host }, token);
  expect((await migrate("local@lvm#lvm", `member:${PROJECT}`)).status).toBe(403);
  const same = await migrate("local@lvm#lvm");
  expect([same.status, String(at(same, "badRequest.message"))]).toEqual([
    400,
    "Invalid host: Destination host must be different than the current host.",
  ]);
  const nowhere = await migrate("mars@lvm#lvm");
  expect(String(at(nowhere, "badRequest.message"))).toContain("No available service named mars@lvm#lvm");
  expect((await block.act(volume, "os-migrate_volume", {}, ADMIN)).status).toBe(400);
  await block.createSnapshot(volume);
  expect((await migrate("local@lvm#lvm")).status).toBe(400);
  const complete = (id: string) => block.act(volume, "os-migrate_volume_completion", { new_volume: id }, ADMIN);
  expect((await complete(randomUUID())).status).toBe(404);
  expect((await complete(volume)).status).toBe(400);
});

it("a project is told of volumes that failed, and nobody else; messages are filtered, shown and deleted", async () => {
  const failed = await block.createVolume({ size: 500 }, "error");
  await block.act(volume, "os-extend", { new_size: 400 });
  await block.until(volume, "error_extending");
  const list = await block.call("GET", "/messages?sort=created_at:asc&limit=1");
  expect(list.body["messages_links"]).toHaveLength(1);
  const [first] = listAt(await block.call("GET", `/messages?resource_uuid=${failed}`), "messages");
  expect(first).toMatchObject({ message_level: "ERROR", resource_type: "VOLUME", event_id: "VOLUME_VOLUME_001_003" });
  const [extension] = listAt(await block.call("GET", `/messages?resource_uuid=${volume}`), "messages");
  expect(extension).toMatchObject({ user_message: "extend volume:Volume Driver failed to extend volume." });
  const path = `/messages/${String(first?.["id"])}`;
  expect((await block.call("GET", path)).body["message"]).toMatchObject({ resource_uuid: failed });
  const stranger = { token: `member:${OTHER_PROJECT}` };
  expect((await block.call("GET", path, stranger)).status).toBe(404);
  expect((await block.call("GET", "/messages", stranger)).body["messages"]).toEqual([]);
  expect((await block.call("DELETE", path, { token: `reader:${PROJECT}` })).status).toBe(403);
  expect((await block.call("GET", "/messages", { version: "volume 3.2" })).status).toBe(404);
  expect((await block.call("DELETE", path)).status).toBe(204);
  expect((await block.call("GET", path)).status).toBe(404);
});

it("filters, capabilities, hosts, clusters and what was left undone are shown to whom they concern", async () => {
  const filters = await block.call("GET", "/resource_filters?resource=snapshot");
  expect(listAt(filters, "resource_filters")).toEqual([
    { resource: "snapshot", filters: ["name", "status", "volume_id", "metadata"] },
  ]);
  expect((await block.call("GET", "/resource_filters", { version: "volume 3.32" })).status).toBe(404);
  const capabilities = await block.asAdmin("GET", "/capabilities/local@lvm");
  expect(capabilities.body).toMatchObject({ vendor_name: "Ringstead", volume_backend_name: "lvm" });
  expect((await block.asAdmin("GET", "/capabilities/mars@lvm")).status).toBe(404);
  expect((await block.call("GET", "/capabilities/local@lvm")).status).toBe(403);
  const hosts = listAt(await block.asAdmin("GET", "/os-hosts"), "hosts");
  expect(hosts.map((one) => [one["host_name"], one["service-status"]])).toContainEqual(["local@lvm", "available"]);
  const usage = listAt(await block.asAdmin("GET", "/os-hosts/local@lvm"), "host");
  expect(usage.map((one) => at({ body: one }, "resource.project"))).toEqual(["(total)", PROJECT]);
  expect(Number(at({ body: usage[0] ?? {} }, "resource.volume_count"))).toBeGreaterThan(1);
  expect((await block.asAdmin("GET", "/os-hosts/mars@lvm")).status).toBe(404);
  expect((await block.asAdmin("PUT", "/os-hosts/local@lvm", { status: "disable" })).body).toMatchObject({
    status: "disabled",
  });
  await block.createVolume({ size: 1 }, "error");
  expect((await block.asAdmin("PUT", "/os-hosts/local@lvm", { status: "enable" })).status).toBe(200);
  expect((await block.asAdmin("GET", "/clusters")).body).toEqual({ clusters: [] });
  expect((await block.asAdmin("GET", "/clusters/one")).status).toBe(404);
  expect((await block.asAdmin("PUT", "/clusters/enable", { name: "one" })).status).toBe(404);
  const cleanup = await block.asAdmin("POST", "/workers/cleanup", { host: "local@lvm", is_up: true });
  expect([cleanup.status, cleanup.body]).toMatchObject([202, { cleaning: [{ host: "local@lvm" }], unavailable: [] }]);
  expect((await block.asAdmin("POST", "/workers/cleanup", {})).body).toEqual({ cleaning: [], unavailable: [] });
  expect((await block.asAdmin("POST", "/workers/cleanup", { resource_type: "Cat" })).status).toBe(400);
  expect((await block.call("POST", "/workers/cleanup", { body: {} })).status).toBe(403);
});
