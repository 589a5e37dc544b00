import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const ADMIN = `admin:${PROJECT}`;
const STRANGER = `member:${OTHER_PROJECT}`;
const READER = `reader:${PROJECT}`;

let block: TestBlock;
let volume: string;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, {
    quota_set: { volumes: 100, snapshots: 100, gigabytes: 1000 },
  });
});
beforeEach(async () => void (volume = await block.createVolume({ size: 2 })));
afterAll(() => block[Symbol.asyncDispose]());

const take = (fields: object = {}, version?: string) =>
  block.call("POST", "/snapshots", {
    body: { snapshot: { volume_id: volume, ...fields } },
    ...(version === undefined ? {} : { version }),
  });
const gone = (id: string) => block.untilShown(`/snapshots/${id}`, "snapshot", "gone");
const actOn = (id: string, name: string, argument: unknown, token = ADMIN) =>
  block.call("POST", `/snapshots/${id}/action`, { body: { [name]: argument }, token });

it("a snapshot is taken, shown, changed and deleted, and the host has it just as long", async () => {
  const answer = await take({ name: "first", description: "for tests", metadata: { a: "1" } });
  expect([answer.status, answer.body["snapshot"]]).toMatchObject([
    202,
    { name: "first", description: "for tests", volume_id: volume, status: "creating", size: 2, metadata: { a: "1" } },
  ]);
  const id = String(at(answer, "snapshot.id"));
  await block.untilShown(`/snapshots/${id}`, "snapshot", "available");
  expect([...(block.host.volumes.get(volume)?.snapshots ?? [])]).toEqual([id]);
  const shown = await block.call("GET", `/snapshots/${id}`);
  expect(shown.body["snapshot"]).toMatchObject({
    "os-extended-snapshot-attributes:project_id": PROJECT,
    "os-extended-snapshot-attributes:progress": "100%",
    group_snapshot_id: null,
    user_id: "33333333333333333333333333333333",
    consumes_quota: true,
  });
  const old = await block.call("GET", `/snapshots/${id}`, { version: "volume 3.13" });
  expect(Object.keys(old.body["snapshot"] as object)).not.toContain("group_snapshot_id");
  const changed = await block.call("PUT", `/snapshots/${id}`, { body: { snapshot: { name: "renamed" } } });
  expect([changed.status, at(changed, "snapshot.name")]).toEqual([200, "renamed"]);
  expect((await block.call("PUT", `/snapshots/${id}`, { body: { snapshot: {} } })).status).toBe(400);
  expect((await take({ volume_id: null })).status).toBe(404);
  expect((await block.call("DELETE", `/snapshots/${id}`)).status).toBe(202);
  await gone(id);
  expect(block.host.volumes.get(volume)?.snapshots.size).toBe(0);
});

it("an attached volume is snapshot by force, and since 3.66 without", async () => {
  await block.act(volume, "os-attach", { host_name: "somewhere", mountpoint: "/dev/vdb" });
  expect((await take({}, "volume 3.65")).status).toBe(400);
  expect((await take({ force: false }, "volume 3.65")).status).toBe(400);
  expect((await take({ force: "perhaps" }, "volume 3.65")).status).toBe(400);
  expect((await take({ force: true }, "volume 3.65")).status).toBe(202);
  expect((await take()).status).toBe(202);
  expect((await take({ force: true })).status).toBe(202);
  expect((await take({ force: false })).status).toBe(400);
  expect(await block.statusOf(volume)).toBe("in-use");
});

it("others than the owner learn nothing of a snapshot, readers change nothing", async () => {
  const id = await block.createSnapshot(volume);
  const path = `/snapshots/${id}`;
  for (const [method, where] of [
    ["GET", path],
    ["DELETE", path],
    ["GET", `${path}/metadata`],
  ] as const)
    expect((await block.call(method, where, { token: STRANGER })).status).toBe(404);
  expect(
    (await block.call("POST", "/snapshots", { body: { snapshot: { volume_id: volume } }, token: STRANGER })).status,
  ).toBe(404);
  expect((await block.call("DELETE", path, { token: READER })).status).toBe(403);
  expect((await block.call("GET", path, { token: READER })).status).toBe(200);
  expect((await actOn(id, "os-reset_status", { status: "error" }, STRANGER)).status).toBe(404);
  expect((await block.call("GET", "/snapshots", { token: STRANGER })).body["snapshots"]).toEqual([]);
  const all = await block.call("GET", `/snapshots?all_tenants=1&volume_id=${volume}`, {
    token: `admin:${OTHER_PROJECT}`,
  });
  expect(listAt(all, "snapshots")).toHaveLength(1);
});

it("snapshots are listed by what they are of, page by page in any order, and counted", async () => {
  for (const [index, name] of ["b", "c", "a"].entries())
    await block.createSnapshot(volume, { name: `page ${name}`, metadata: { odd: String(index % 2) } });
  const follow = async (first: string): Promise<unknown[]> => {
    const names: unknown[] = [];
    let path: string | undefined = first;
    while (path !== undefined) {
      const answer = await block.call("GET", path);
      expect(answer.status).toBe(200);
      names.push(...listAt(answer, "snapshots").map((one) => one["name"]));
      const links = answer.body["snapshots_links"];
      path = Array.isArray(links) ? String((links[0] as { href: string }).href).replace(/^.*\/v3/, "") : undefined;
    }
    return names;
  };
  const of = `volume_id=${volume}`;
  expect(await follow(`/snapshots?limit=1&sort=name:asc&${of}`)).toEqual(["page a", "page b", "page c"]);
  expect(await follow(`/snapshots/detail?limit=2&sort_key=created_at&sort_dir=asc&${of}`)).toEqual([
    "page b",
    "page c",
    "page a",
  ]);
  expect(await follow(`/snapshots?name~=age+c&${of}`)).toEqual(["page c"]);
  expect(await follow(`/snapshots?metadata=${encodeURIComponent("{'odd': '1'}")}&${of}`)).toEqual(["page c"]);
  expect(await follow(`/snapshots?status=error&${of}`)).toEqual([]);
  expect((await block.call("GET", `/snapshots?limit=1&with_count=True&${of}`)).body["count"]).toBe(3);
  expect((await block.call("GET", "/snapshots?marker=nothing")).status).toBe(404);
  expect((await block.call("GET", "/snapshots?sort=nothing")).status).toBe(400);
});

it("a snapshot's metadata is shown, added, replaced and removed, key by key too", async () => {
  const path = `/snapshots/${await block.createSnapshot(volume, { metadata: { a: "1" } })}/metadata`;
  expect((await block.call("POST", path, { body: { metadata: { b: "2" } } })).body).toEqual({
    metadata: { a: "1", b: "2" },
  });
  expect((await block.call("PUT", path, { body: { metadata: { c: "3" } } })).body).toEqual({ metadata: { c: "3" } });
  expect((await block.call("PUT", `${path}/c`, { body: { meta: { c: "4" } } })).body).toEqual({ meta: { c: "4" } });
  expect((await block.call("PUT", `${path}/c`, { body: { meta: { d: "4" } } })).status).toBe(400);
  expect((await block.call("GET", `${path}/c`)).body).toEqual({ meta: { c: "4" } });
  expect((await block.call("DELETE", `${path}/c`)).status).toBe(200);
  expect((await block.call("DELETE", `${path}/c`)).status).toBe(404);
  expect((await block.call("GET", path)).body).toEqual({ metadata: {} });
  expect((await block.call("POST", path, { body: { metadata: { b: 2 } } })).status).toBe(400);
});

describe("volumes and their snapshots", () => {
  it("a volume is made of a snapshot, no smaller, with its type, and no snapshot goes under it", async () => {
    const id = await block.createSnapshot(volume);
    await block.act(volume, "os-set_bootable", { bootable: true });
    await block.act(volume, "os-set_image_metadata", { metadata: { os_distro: "debian" } });
    const made = (fields: object) =>
      block.call("POST", "/volumes", { body: { volume: { snapshot_id: id, ...fields } } });
    expect((await made({ size: 1 })).status).toBe(400);
    expect((await made({ source_volid: volume })).status).toBe(400);
    const held = Promise.withResolvers<void>();
    block.host.intercept = (method, moment) =>
      method === "createVolume" && moment === "before" ? held.promise : undefined;
    const copy = await block.createVolume({ snapshot_id: id }, "creating");
    expect((await block.call("DELETE", `/snapshots/${id}`)).status).toBe(400);
    expect((await block.call("DELETE", `/volumes/${volume}?cascade=True`)).status).toBe(400);
    held.resolve();
    block.host.intercept = () => {};
    await block.until(copy, "available");
    expect((await block.call("GET", `/volumes/${copy}`)).body["volume"]).toMatchObject({
      size: 2,
      snapshot_id: id,
      bootable: "true",
      volume_image_metadata: { os_distro: "debian" },
    });
    const larger = await block.createVolume({ snapshot_id: id, size: 3 });
    expect(block.host.volumes.get(larger)?.sizeBytes).toBe(3 * 1024 ** 3);
    await block.call("DELETE", `/snapshots/${id}`);
    await gone(id);
    expect((await made({})).status).toBe(404);
  });

  it("a volume with snapshots is not deleted, but with them where that is asked for", async () => {
    const ids = [await block.createSnapshot(volume), await block.createSnapshot(volume)];
    expect((await block.call("DELETE", `/volumes/${volume}`)).status).toBe(400);
    expect((await block.call("DELETE", `/volumes/${volume}?force=True`, { token: ADMIN })).status).toBe(400);
    expect((await block.call("DELETE", `/volumes/${volume}?cascade=True`)).status).toBe(202);
    await block.until(volume, "gone");
    for (const id of ids) expect((await block.call("GET", `/snapshots/${id}`)).status).toBe(404);
    expect(block.host.volumes.has(volume)).toBe(false);
  });

  it("a volume is reverted to its latest snapshot, free, as large as it was, since 3.40", async () => {
    const first = await block.createSnapshot(volume);
    const latest = await block.createSnapshot(volume);
    const revert = (id: string) => block.act(volume, "revert", { snapshot_id: id });
    expect((await revert(first)).status).toBe(400);
    expect((await revert(randomUUID())).status).toBe(404);
    const old = { body: { revert: { snapshot_id: latest } }, version: "volume 3.39" };
    expect((await block.call("POST", `/volumes/${volume}/action`, old)).status).toBe(400);
    await block.act(volume, "os-attach", { host_name: "somewhere", mountpoint: "/dev/vdb" });
    expect((await revert(latest)).status).toBe(409);
    await block.act(volume, "os-detach", {});
    expect((await revert(latest)).status).toBe(202);
    await block.until(volume, "available");
    expect(block.host.volumes.get(volume)?.reversions).toBe(1);
    expect(at(await block.call("GET", `/snapshots/${latest}`), "snapshot.status")).toBe("available");
    await block.act(volume, "os-extend", { new_size: 3 });
    await block.until(volume, "available");
    expect((await revert(latest)).status).toBe(400);
  });
});

it("an administrator sets a snapshot's status and deletes it by force; a service says how far it is", async () => {
  const id = await block.createSnapshot(volume);
  expect((await actOn(id, "os-reset_status", { status: "error" }, `member:${PROJECT}`)).status).toBe(403);
  expect((await actOn(id, "os-reset_status", { status: "nonsense" })).status).toBe(400);
  expect((await actOn(id, "os-update_snapshot_status", { status: "available" })).status).toBe(400);
  expect((await actOn(id, "os-reset_status", { status: "creating" })).status).toBe(202);
  expect((await block.call("DELETE", `/snapshots/${id}`)).status).toBe(400);
  expect((await actOn(id, "os-update_snapshot_status", { status: "creating", progress: "73" })).status).toBe(400);
  expect((await actOn(id, "os-update_snapshot_status", { status: "creating", progress: "73%" })).status).toBe(202);
  const shown = await block.call("GET", `/snapshots/${id}`);
  expect(at(shown, "snapshot.os-extended-snapshot-attributes:progress")).toBe("73%");
  expect((await actOn(id, "os-nothing", {})).status).toBe(400);
  expect((await actOn(id, "os-force_delete", {}, `member:${PROJECT}`)).status).toBe(403);
  expect((await actOn(id, "os-force_delete", {})).status).toBe(202);
  await gone(id);
});

it("limits hold for snapshots, with their gigabytes and their types, and the project is told which was in the way", async () => {
  await using own = await TestBlock.start();
  const id = await own.createVolume({ size: 2 });
  const limits = (quota: object) => own.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: quota });
  const asked = () => own.call("POST", "/snapshots", { body: { snapshot: { volume_id: id } } });
  await limits({ snapshots: 3, gigabytes: 7 });
  const answers = await Promise.all(Array.from({ length: 8 }, asked));
  expect(answers.filter(({ status }) => status === 202)).toHaveLength(2);
  expect(String(at(answers.find(({ status }) => status === 413) ?? { body: {} }, "overLimit.message"))).toContain(
    "Requested 2G, quota is 7G and 6G has been consumed",
  );
  expect(listAt(await own.call("GET", "/messages"), "messages")[0]).toMatchObject({
    resource_uuid: id,
    user_message: "create snapshot:Not enough quota resource for operation.",
    request_id: expect.stringMatching(/^req-/),
  });
  await limits({ gigabytes: -1 });
  expect((await asked()).status).toBe(202);
  expect(String(at(await asked(), "overLimit.message"))).toContain("Maximum number of snapshots allowed (3)");
  await limits({ snapshots: -1, snapshots___DEFAULT__: 3 });
  expect((await asked()).status).toBe(413);
  const usage = await own.call("GET", `/os-quota-sets/${PROJECT}?usage=True`);
  expect(at(usage, "quota_set.snapshots")).toEqual({ limit: -1, in_use: 3, reserved: 0 });
  expect(at(usage, "quota_set.gigabytes.in_use")).toBe(8);
  expect(at(await own.call("GET", "/limits"), "limits.absolute.totalSnapshotsUsed")).toBe(3);
});
