import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const STRANGER = `member:${OTHER_PROJECT}`;
const TYPE = "default_cgsnapshot_type";

let block: TestBlock;
let group: string;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, {
    quota_set: { volumes: 100, snapshots: 100, groups: 100 },
  });
});
beforeEach(async () => {
  block.host.intercept = () => {};
  group = String(at(await create(), "consistencygroup.id"));
});
afterAll(() => block[Symbol.asyncDispose]());

/** As cinderclient asks for it, with what nobody reads. */
const create = (fields: object = {}) =>
  block.call("POST", "/consistencygroups", {
    body: { consistencygroup: { name: "all", volume_types: "__DEFAULT__,", status: "creating", ...fields } },
    version: "volume 3.0",
  });
const volumeIn = (id: string, size = 1) => block.createVolume({ size, consistencygroup_id: id });
const snapshotOf = (id: string) =>
  block.call("POST", "/cgsnapshots", { body: { cgsnapshot: { consistencygroup_id: id, name: "point" } } });
const remove = (id: string, force: unknown, token = `member:${PROJECT}`) =>
  block.call("POST", `/consistencygroups/${id}/delete`, { body: { consistencygroup: { force } }, token });
const untilGroup = (id: string, status: string) =>
  block.untilShown(`/consistencygroups/${id}`, "consistencygroup", status);

it("consistency groups are made, listed, shown, filled, changed and deleted", async () => {
  const inside = await volumeIn(group);
  const shown = await block.call("GET", `/consistencygroups/${group}`);
  expect(shown.body["consistencygroup"]).toMatchObject({
    id: group,
    name: "all",
    status: "available",
    availability_zone: "nova",
    description: null,
    volume_types: [expect.any(String)],
  });
  const volume = await block.call("GET", `/volumes/${inside}`, { version: "volume 3.0" });
  expect(at(volume, "volume.consistencygroup_id")).toBe(group);
  const listed = await block.call("GET", `/volumes?consistencygroup_id=${group}`);
  expect(listAt(listed, "volumes").map((one) => one["id"])).toEqual([inside]);
  const outside = await block.createVolume();
  const change = { name: "renamed", add_volumes: outside, remove_volumes: inside };
  const changed = await block.call("PUT", `/consistencygroups/${group}/update`, { body: { consistencygroup: change } });
  expect(changed.status).toBe(202);
  expect(at(await block.call("GET", `/volumes/${inside}`), "volume.consistencygroup_id")).toBe(null);
  const nothing = { body: { consistencygroup: {} } };
  expect((await block.call("PUT", `/consistencygroups/${group}/update`, nothing)).status).toBe(400);
  const details = listAt(await block.call("GET", "/consistencygroups/detail?limit=1"), "consistencygroups");
  expect(details).toMatchObject([{ id: group, name: "renamed", status: "available" }]);
  expect((await block.call("GET", "/consistencygroups?limit=1")).body["consistencygroup_links"]).toBeDefined();
  expect((await remove(group, false)).status).toBe(400);
  expect((await remove(group, "perhaps")).status).toBe(400);
  expect((await remove(group, true)).status).toBe(202);
  await untilGroup(group, "gone");
  expect(await block.statusOf(outside)).toBe("gone");
  expect(await block.statusOf(inside)).toBe("available");
});

it("a consistency group needs types that there are, and is nobody else's", async () => {
  expect((await create({ volume_types: "" })).status).toBe(400);
  expect((await create({ volume_types: "nothing" })).status).toBe(404);
  expect((await create({ availability_zone: "elsewhere" })).status).toBe(400);
  expect((await block.call("GET", `/consistencygroups/${group}`, { token: STRANGER })).status).toBe(404);
  expect((await block.call("GET", "/consistencygroups", { token: STRANGER })).body["consistencygroups"]).toEqual([]);
  expect((await remove(group, true, `reader:${PROJECT}`)).status).toBe(403);
  const act = await block.call("POST", `/consistencygroups/${group}/action`, { body: { freeze: {} } });
  expect(act.status).toBe(400);
  expect((await block.call("DELETE", `/consistencygroups/${group}`)).status).toBe(202);
  expect((await block.call("GET", `/consistencygroups/${group}`)).status).toBe(404);
});

it("the snapshots of a consistency group are of one instant: of volumes that nobody has open", async () => {
  expect((await snapshotOf(group)).status).toBe(400);
  const [first, second] = [await volumeIn(group, 1), await volumeIn(group, 2)];
  // Whoever connects while the snapshots are taken does so after that of the volume.
  const isTaking = Promise.withResolvers<void>();
  const mayGoOn = Promise.withResolvers<void>();
  const calls: string[] = [];
  block.host.intercept = async (method, moment) => {
    if (moment !== "before" || (method !== "createSnapshot" && method !== "exportVolume")) return;
    calls.push(method);
    if (method === "createSnapshot") isTaking.resolve();
    if (method === "createSnapshot") await mayGoOn.promise;
  };
  const made = await snapshotOf(group);
  expect(made.status).toBe(202);
  await isTaking.promise;
  const path = `/cgsnapshots/${String(at(made, "cgsnapshot.id"))}`;
  expect((await block.call("GET", path)).body["cgsnapshot"]).toMatchObject({
    name: "point",
    consistencygroup_id: group,
    status: "creating",
  });
  const connector = { host: "elsewhere", initiator: "iqn.1993-08.org.debian:01:abc" };
  const attaching = block.call("POST", "/attachments", {
    body: { attachment: { volume_uuid: second, instance_uuid: second, connector } },
  });
  mayGoOn.resolve();
  const attachment = await attaching;
  expect(attachment.status).toBe(200);
  await block.untilShown(path, "cgsnapshot", "available");
  expect(calls.filter((method) => method === "createSnapshot")).toHaveLength(2);
  expect(calls.indexOf("exportVolume")).toBeGreaterThan(0);
  const refused = await snapshotOf(group);
  expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("of one instant")]);
  await block.call("DELETE", `/attachments/${String(at(attachment, "attachment.id"))}`);
  await block.until(second, "available");
  // Nor do connections hide that no status tells of, and what an operator has open.
  const opened = { "os-initialize_connection": { connector } };
  expect((await block.call("POST", `/volumes/${first}/action`, { body: opened })).status).toBe(200);
  expect((await snapshotOf(group)).status).toBe(400);
  const closed = { "os-terminate_connection": { connector } };
  expect((await block.call("POST", `/volumes/${first}/action`, { body: closed })).status).toBe(202);
  await block.host.exportVolume({ volumeId: first, attachmentId: first, transport: "unix", isReadOnly: false });
  expect((await snapshotOf(group)).status).toBe(400);
  await block.host.unexportVolume(first, first);
  const again = await snapshotOf(group);
  expect(again.status).toBe(202);
  await block.untilShown(`/cgsnapshots/${String(at(again, "cgsnapshot.id"))}`, "cgsnapshot", "available");
});

it("consistency groups are made of snapshots of consistency groups", async () => {
  for (const size of [1, 2]) await volumeIn(group, size);
  const snapshot = String(at(await snapshotOf(group), "cgsnapshot.id"));
  await block.untilShown(`/cgsnapshots/${snapshot}`, "cgsnapshot", "available");
  expect(listAt(await block.call("GET", "/cgsnapshots/detail"), "cgsnapshots")).toContainEqual(
    expect.objectContaining({ id: snapshot, consistencygroup_id: group }),
  );
  const from = (fields: object) =>
    block.call("POST", "/consistencygroups/create_from_src", { body: { "consistencygroup-from-src": fields } });
  expect((await from({})).status).toBe(400);
  expect((await from({ cgsnapshot_id: snapshot, source_cgid: group })).status).toBe(400);
  const copy = await from({ cgsnapshot_id: snapshot, name: "copy" });
  expect([copy.status, at(copy, "consistencygroup.name")]).toEqual([202, "copy"]);
  const id = String(at(copy, "consistencygroup.id"));
  await untilGroup(id, "available");
  const volumes = listAt(await block.call("GET", `/volumes/detail?group_id=${id}&sort=size:asc`), "volumes");
  expect(volumes).toMatchObject([
    { size: 1, consistencygroup_id: id },
    { size: 2, consistencygroup_id: id },
  ]);
  expect((await remove(id, "true")).status).toBe(202);
  await untilGroup(id, "gone");
  expect((await remove(group, true)).status).toBe(400);
  const path = `/cgsnapshots/${snapshot}`;
  expect((await block.call("DELETE", path, { token: STRANGER })).status).toBe(404);
  expect((await block.call("DELETE", path, { token: `reader:${PROJECT}` })).status).toBe(403);
  expect((await block.call("DELETE", path)).status).toBe(202);
  await block.untilShown(path, "cgsnapshot", "gone");
});

it("a group of one instant is not copied volume by volume, whichever operation asks for that", async () => {
  await volumeIn(group);
  await block.asAdmin("POST", "/group_types", {
    group_type: { name: "not copied", group_specs: { consistent_group_snapshot_enabled: "<is> True" } },
  });
  const wanted = { name: "plain", group_type: "not copied", volume_types: ["__DEFAULT__"] };
  const plain = String(at(await block.call("POST", "/groups", { body: { group: wanted } }), "group.id"));
  await block.createVolume({ size: 1, group_id: plain });
  const asked = [
    block.call("POST", "/consistencygroups/create_from_src", {
      body: { "consistencygroup-from-src": { source_cgid: group } },
    }),
    block.call("POST", "/consistencygroups/create_from_src", {
      body: { "consistencygroup-from-src": { source_cgid: plain } },
    }),
    block.call("POST", "/groups/action", { body: { "create-from-src": { source_group_id: plain } } }),
  ];
  for (const answer of await Promise.all(asked))
    expect([answer.status, JSON.stringify(answer.body)]).toEqual([
      400,
      expect.stringContaining("would not be of one instant"),
    ]);
});

it("an administrator's volume is put into no group of another project", async () => {
  const token = `admin:${OTHER_PROJECT}`;
  const plainType = at(
    await block.asAdmin("POST", "/group_types", { group_type: { name: "theirs" } }),
    "group_type.id",
  );
  const wanted = { group_type: plainType, volume_types: ["__DEFAULT__"] };
  const plain = String(at(await block.call("POST", "/groups", { body: { group: wanted } }), "group.id"));
  for (const fields of [{ consistencygroup_id: group }, { group_id: group }, { group_id: plain }]) {
    const refused = await block.call("POST", "/volumes", { body: { volume: { size: 1, ...fields } }, token });
    expect([refused.status, JSON.stringify(refused.body)]).toEqual([
      400,
      expect.stringContaining("is another project's"),
    ]);
  }
  expect((await block.call("GET", "/volumes", { token })).body["volumes"]).toEqual([]);
});

it("operations of groups leave consistency groups alone", async () => {
  await volumeIn(group);
  const snapshot = String(at(await snapshotOf(group), "cgsnapshot.id"));
  await block.untilShown(`/cgsnapshots/${snapshot}`, "cgsnapshot", "available");
  const ids = async (path: string, name: string) => listAt(await block.call("GET", path), name).map((one) => one["id"]);
  expect(await ids("/groups", "groups")).not.toContain(group);
  expect(await ids("/group_snapshots", "group_snapshots")).not.toContain(snapshot);
  const refused = [
    block.call("GET", `/groups/${group}`),
    block.call("PUT", `/groups/${group}`, { body: { group: { name: "other" } } }),
    block.call("POST", `/groups/${group}/action`, { body: { delete: { "delete-volumes": true } } }),
    block.call("POST", "/groups", { body: { group: { group_type: TYPE, volume_types: ["__DEFAULT__"] } } }),
    block.call("POST", "/groups/action", { body: { "create-from-src": { source_group_id: group } } }),
    block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: group } } }),
    block.call("GET", `/group_snapshots/${snapshot}`),
    block.call("DELETE", `/group_snapshots/${snapshot}`),
  ];
  for (const answer of await Promise.all(refused)) {
    expect(answer.status).toBe(400);
    expect(JSON.stringify(answer.body)).toContain("is reserved for consistency groups");
  }
});

it("a group of any type that asks for it has snapshots of one instant", async () => {
  await block.asAdmin("POST", "/group_types", {
    group_type: { name: "at one instant", group_specs: { consistent_group_snapshot_enabled: "<is> True" } },
  });
  const wanted = { name: "plain", group_type: "at one instant", volume_types: ["__DEFAULT__"] };
  const made = await block.call("POST", "/groups", { body: { group: wanted } });
  const id = String(at(made, "group.id"));
  const volume = await block.createVolume({ size: 1, group_id: id });
  const body = { attachment: { volume_uuid: volume, instance_uuid: volume } };
  const attachment = await block.call("POST", "/attachments", { body });
  const snapshot = () => block.call("POST", "/group_snapshots", { body: { group_snapshot: { group_id: id } } });
  expect((await snapshot()).status).toBe(400);
  await block.call("DELETE", `/attachments/${String(at(attachment, "attachment.id"))}`);
  await block.until(volume, "available");
  const taken = await snapshot();
  expect(taken.status).toBe(202);
  await block.untilShown(`/group_snapshots/${String(at(taken, "group_snapshot.id"))}`, "group_snapshot", "available");
});

it("the type of consistency groups is neither renamed nor deleted, and without its spec they are of one instant too", async () => {
  const other = await TestBlock.start();
  try {
    const types = listAt(await other.call("GET", "/group_types"), "group_types");
    const path = `/group_types/${String(types.find(({ name }) => name === TYPE)?.["id"])}`;
    const asked = [
      other.asAdmin("DELETE", path),
      other.asAdmin("PUT", path, { group_type: { name: "something else" } }),
    ];
    for (const { status, body } of await Promise.all(asked))
      expect([status, JSON.stringify(body)]).toEqual([400, expect.stringContaining("neither renamed nor deleted")]);
    expect((await other.asAdmin("PUT", path, { group_type: { name: TYPE, description: "ours" } })).status).toBe(200);
    const spec = `${path}/group_specs/consistent_group_snapshot_enabled`;
    expect((await other.asAdmin("DELETE", spec)).status).toBe(202);
    const made = await other.call("POST", "/consistencygroups", {
      body: { consistencygroup: { volume_types: "__DEFAULT__" } },
    });
    const id = String(at(made, "consistencygroup.id"));
    const volume = await other.createVolume({ size: 1, consistencygroup_id: id });
    const attachment = { volume_uuid: volume, instance_uuid: volume };
    expect((await other.call("POST", "/attachments", { body: { attachment } })).status).toBe(200);
    const body = { cgsnapshot: { consistencygroup_id: id } };
    const refused = await other.call("POST", "/cgsnapshots", { body });
    expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("of one instant")]);
  } finally {
    await other[Symbol.asyncDispose]();
  }
});
