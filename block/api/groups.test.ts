import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const STRANGER = `member:${OTHER_PROJECT}`;

let block: TestBlock;
let groupType: string;
let group: string;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, {
    quota_set: { volumes: 100, snapshots: 100, groups: 100 },
  });
  const made = await block.asAdmin("POST", "/group_types", { group_type: { name: "plain" } });
  groupType = String(at(made, "group_type.id"));
});
beforeEach(async () => {
  block.host.intercept = () => {};
  group = await makeGroup();
});
afterAll(() => block[Symbol.asyncDispose]());

const createGroup = (fields: object = {}) =>
  block.call("POST", "/groups", {
    body: { group: { name: "all", group_type: groupType, volume_types: ["__DEFAULT__"], ...fields } },
  });
const makeGroup = async (): Promise<string> => String(at(await createGroup(), "group.id"));
const act = (id: string, name: string, argument: unknown, token = `member:${PROJECT}`) =>
  block.call("POST", `/groups/${id}/action`, { body: { [name]: argument }, token });
const update = (fields: object) => block.call("PUT", `/groups/${group}`, { body: { group: fields } });
const untilGroup = (id: string, status: string) => block.untilShown(`/groups/${id}`, "group", status);
const volumesIn = async (id: string): Promise<ReadonlySet<unknown>> =>
  new Set(at(await block.call("GET", `/groups/${id}?list_volume=True`), "group.volumes") as unknown[]);

it("group types and their specs are made, shown, changed and deleted by administrators", async () => {
  const made = await block.asAdmin("POST", "/group_types", {
    group_type: { name: "own", is_public: false, group_specs: { a: "1" } },
  });
  expect([made.status, made.body["group_type"]]).toMatchObject([
    202,
    { name: "own", is_public: false, group_specs: { a: "1" } },
  ]);
  const path = `/group_types/${String(at(made, "group_type.id"))}`;
  expect((await block.asAdmin("POST", "/group_types", { group_type: { name: "own" } })).status).toBe(409);
  expect((await block.call("POST", "/group_types", { body: { group_type: { name: "mine" } } })).status).toBe(403);
  expect((await block.call("GET", path)).status).toBe(404);
  expect(listAt(await block.call("GET", "/group_types"), "group_types")).toMatchObject([
    { id: groupType, name: "plain", description: null, is_public: true },
    { name: "default_cgsnapshot_type", is_public: true },
  ]);
  expect(listAt(await block.asAdmin("GET", "/group_types?is_public=None"), "group_types")).toHaveLength(3);
  expect((await block.asAdmin("PUT", path, { group_type: { description: "ours" } })).body["group_type"]).toMatchObject({
    name: "own",
    description: "ours",
  });
  expect((await block.asAdmin("PUT", path, { group_type: {} })).status).toBe(400);
  expect((await block.asAdmin("POST", `${path}/action`, { nothing: {} })).status).toBe(400);
  const specs = `${path}/group_specs`;
  expect((await block.asAdmin("POST", specs, { group_specs: { b: "2" } })).status).toBe(202);
  expect((await block.asAdmin("PUT", `${specs}/b`, { b: "3" })).body).toEqual({ b: "3" });
  expect((await block.asAdmin("PUT", `${specs}/b`, { c: "3" })).status).toBe(400);
  expect((await block.asAdmin("GET", `${specs}/b`)).body).toEqual({ b: "3" });
  expect((await block.asAdmin("GET", specs)).body).toEqual({ group_specs: { a: "1", b: "3" } });
  expect((await block.asAdmin("DELETE", `${specs}/b`)).status).toBe(202);
  expect((await block.asAdmin("DELETE", `${specs}/b`)).status).toBe(404);
  expect((await block.asAdmin("DELETE", path)).status).toBe(202);
  expect((await block.asAdmin("DELETE", path)).status).toBe(404);
  expect((await block.asAdmin("DELETE", `/group_types/${groupType}`)).status).toBe(400);
});

it("volumes are made in a group, added and removed; those of another type are not", async () => {
  const inside = await block.createVolume({ size: 1, group_id: group });
  const outside = await block.createVolume();
  expect(at(await block.call("GET", `/volumes/${inside}`), "volume.group_id")).toBe(group);
  expect((await block.call("DELETE", `/volumes/${inside}`)).status).toBe(400);
  expect((await update({ add_volumes: outside, name: "renamed" })).status).toBe(202);
  expect(await volumesIn(group)).toEqual(new Set([inside, outside]));
  const shown = await block.call("GET", `/groups/${group}`);
  expect(shown.body["group"]).toMatchObject({ name: "renamed", status: "available", group_type: groupType });
  expect(Object.keys(shown.body["group"] as object)).not.toContain("volumes");
  expect((await update({ remove_volumes: inside })).status).toBe(202);
  expect((await update({ remove_volumes: inside })).status).toBe(400);
  expect((await update({})).status).toBe(400);
  expect((await update({ add_volumes: "nothing" })).status).toBe(400);
  const other = await makeGroup();
  const taken = await block.call("PUT", `/groups/${other}`, { body: { group: { add_volumes: outside } } });
  expect(taken.status).toBe(400);
  await block.asAdmin("POST", "/types", { volume_type: { name: "else" } });
  const volume = { size: 1, volume_type: "else", group_id: group };
  expect((await block.call("POST", "/volumes", { body: { volume } })).status).toBe(400);
  const listed = await block.call("GET", `/volumes?group_id=${group}`);
  expect(listAt(listed, "volumes").map((one) => one["id"])).toEqual([outside]);
});

it("a group goes alone when it is empty, with its volumes when that is asked for", async () => {
  const volume = await block.createVolume({ size: 1, group_id: group });
  expect((await act(group, "delete", {})).status).toBe(400);
  expect((await act(group, "delete", { "delete-volumes": "perhaps" })).status).toBe(400);
  await block.createSnapshot(volume);
  expect((await act(group, "delete", { "delete-volumes": true })).status).toBe(400);
  expect(at(await block.call("GET", `/groups/${group}`), "group.status")).toBe("available");
  for (const one of listAt(await block.call("GET", `/snapshots?volume_id=${volume}`), "snapshots")) {
    await block.call("DELETE", `/snapshots/${String(one["id"])}`);
    await block.untilShown(`/snapshots/${String(one["id"])}`, "snapshot", "gone");
  }
  block.host.intercept = (method) => {
    if (method === "deleteVolume") throw new RingsteadError("volume-in-use", "it is in use");
  };
  expect((await act(group, "delete", { "delete-volumes": true })).status).toBe(202);
  await untilGroup(group, "error_deleting");
  block.host.intercept = () => {};
  expect((await act(group, "delete", { "delete-volumes": true })).status).toBe(202);
  await untilGroup(group, "gone");
  expect(await block.statusOf(volume)).toBe("gone");
  const empty = await makeGroup();
  expect((await act(empty, "delete", {})).status).toBe(202);
  expect((await block.call("GET", `/groups/${empty}`)).status).toBe(404);
});

it("a group snapshot has a snapshot of each volume, and groups are made of it and of groups", async () => {
  const create = (body: object) => block.call("POST", "/group_snapshots", { body: { group_snapshot: body } });
  expect((await create({ group_id: group })).status).toBe(400);
  for (const size of [1, 2]) await block.createVolume({ size, group_id: group, metadata: { size: String(size) } });
  const made = await create({ group_id: group, name: "both" });
  expect([made.status, at(made, "group_snapshot.name")]).toEqual([202, "both"]);
  const id = String(at(made, "group_snapshot.id"));
  const path = `/group_snapshots/${id}`;
  await block.untilShown(path, "group_snapshot", "available");
  const snapshots = listAt(await block.call("GET", `/snapshots/detail?group_snapshot_id=${id}`), "snapshots");
  expect(snapshots.map((one) => one["status"])).toEqual(["available", "available"]);
  expect((await block.call("DELETE", `/snapshots/${String(snapshots[0]?.["id"])}`)).status).toBe(400);
  expect((await act(group, "delete", { "delete-volumes": true })).status).toBe(400);
  const from = (body: object) => block.call("POST", "/groups/action", { body: { "create-from-src": body } });
  expect((await from({})).status).toBe(400);
  expect((await from({ group_snapshot_id: id, source_group_id: group })).status).toBe(400);
  for (const source of [{ group_snapshot_id: id }, { source_group_id: group }]) {
    const copy = await from({ ...source, name: "copy" });
    expect(copy.status).toBe(202);
    const copyId = String(at(copy, "group.id"));
    await untilGroup(copyId, "available");
    expect((await block.call("GET", `/groups/${copyId}`)).body["group"]).toMatchObject(source);
    const volumes = listAt(await block.call("GET", `/volumes/detail?group_id=${copyId}&sort=size:asc`), "volumes");
    expect(volumes).toMatchObject([
      { size: 1, metadata: { size: "1" } },
      { size: 2, metadata: { size: "2" } },
    ]);
    await act(copyId, "delete", { "delete-volumes": true });
    await untilGroup(copyId, "gone");
  }
  expect((await block.call("DELETE", path, { token: `reader:${PROJECT}` })).status).toBe(403);
  expect((await block.call("DELETE", path)).status).toBe(202);
  await block.untilShown(path, "group_snapshot", "gone");
  expect(listAt(await block.call("GET", "/snapshots"), "snapshots")).toEqual([]);
});

it("where one snapshot fails the group snapshot says so, and is deleted all the same", async () => {
  for (const size of [1, 2]) await block.createVolume({ size, group_id: group });
  let taken = 0;
  block.host.intercept = (method, moment) => {
    if (method !== "createSnapshot" || moment !== "before") return;
    taken += 1;
    if (taken === 2) throw new RingsteadError("pool-full", "it is full");
  };
  const made = await block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: group } } });
  const path = `/group_snapshots/${String(at(made, "group_snapshot.id"))}`;
  await block.untilShown(path, "group_snapshot", "error");
  expect((await block.call("DELETE", path)).status).toBe(202);
  await block.untilShown(path, "group_snapshot", "gone");
});

it("a group whose type asks for what no back-end can is in error", async () => {
  await block.asAdmin("POST", "/group_types", {
    group_type: { name: "replicated", group_specs: { consistent_group_replication_enabled: "<is> True" } },
  });
  const made = await createGroup({ group_type: "replicated" });
  const id = String(at(made, "group.id"));
  expect(at(await block.call("GET", `/groups/${id}`), "group.status")).toBe("error");
  const volume = { size: 1, group_id: id };
  expect((await block.call("POST", "/volumes", { body: { volume } })).status).toBe(400);
  expect((await act(id, "delete", {})).status).toBe(202);
});

it("groups are counted, hidden from others, reset by administrators, and not replicated", async () => {
  expect((await block.call("GET", `/groups/${group}`, { token: STRANGER })).status).toBe(404);
  expect((await block.call("GET", "/groups", { token: STRANGER })).body["groups"]).toEqual([]);
  expect((await act(group, "delete", {}, `reader:${PROJECT}`)).status).toBe(403);
  expect((await act(group, "reset_status", { status: "error" })).status).toBe(403);
  expect((await act(group, "reset_status", { status: "error" }, `admin:${PROJECT}`)).status).toBe(202);
  const page = await block.call("GET", "/groups/detail?limit=1&status=error");
  expect(listAt(page, "groups")).toMatchObject([{ id: group, status: "error" }]);
  expect((await act(group, "enable_replication", {})).status).toBe(400);
  expect((await act(group, "nothing", {})).status).toBe(400);
  expect((await createGroup({ volume_types: [] })).status).toBe(400);
  expect((await createGroup({ volume_types: ["nothing"] })).status).toBe(404);
  expect((await createGroup({ group_type: "nothing" })).status).toBe(404);
  expect((await block.call("GET", "/groups", { version: "volume 3.12" })).status).toBe(404);
  const usage = await block.call("GET", `/os-quota-sets/${PROJECT}?usage=True`);
  const inUse = Number(at(usage, "quota_set.groups.in_use"));
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { groups: inUse } });
  const refused = await createGroup();
  expect([refused.status, String(at(refused, "overLimit.message"))]).toEqual([
    413,
    expect.stringContaining("GroupLimitExceeded"),
  ]);
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { groups: 100 } });
  const made = await block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: group } } });
  expect(made.status).toBe(400);
});
