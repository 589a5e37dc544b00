import { afterAll, beforeAll, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { createFakeVolumeHost } from "../fake-volume-host.ts";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

let block: TestBlock;
beforeAll(async () => void (block = await TestBlock.start()));
afterAll(() => block[Symbol.asyncDispose]());

const setQuota = (limits: object): Promise<unknown> =>
  block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: limits });
const inUse = async (resource: string): Promise<unknown> =>
  at(await block.call("GET", `/os-quota-sets/${PROJECT}?usage=True`), `quota_set.${resource}.in_use`);

it("a volume grows, free or attached, and its size is what the host has", async () => {
  const id = await block.createVolume();
  for (const size of [1, 0, -1, null, "abc", 1.5])
    expect([size, (await block.act(id, "os-extend", { new_size: size })).status]).toEqual([size, 400]);
  expect((await block.act(id, "os-extend", { new_size: "3" })).status).toBe(202);
  await block.until(id, "available");
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.size")).toBe(3);
  expect(block.host.volumes.get(id)?.sizeBytes).toBe(3 * 1024 ** 3);
  await block.act(id, "os-attach", { host_name: "somewhere", mountpoint: "/dev/vdb" });
  const before342 = { version: "volume 3.41", body: { "os-extend": { new_size: 4 } } };
  expect((await block.call("POST", `/volumes/${id}/action`, before342)).status).toBe(400);
  expect((await block.act(id, "os-extend", { new_size: 4 })).status).toBe(202);
  await block.until(id, "in-use");
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.size")).toBe(4);
  await block.act(id, "os-detach", {});
  await block.call("DELETE", `/volumes/${id}`);
  await block.until(id, "gone");
});

it("a volume that its host cannot extend says so, keeps its size and gives back its quota", async () => {
  const id = await block.createVolume();
  expect((await block.act(id, "os-extend", { new_size: 400 })).status).toBe(202);
  await block.until(id, "error_extending");
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.size")).toBe(1);
  expect(await inUse("gigabytes")).toBe(1);
  await block.call("DELETE", `/volumes/${id}`);
  await block.until(id, "gone");
});

it("limits hold for numbers, sizes and types, and are answered as Cinder does", async () => {
  const type = await block.asAdmin("POST", "/types", { volume_type: { name: "small" } });
  expect(type.status).toBe(200);
  await setQuota({ volumes: 2, gigabytes: 5, per_volume_gigabytes: 4, volumes_small: 1 });
  const refused = async (volume: object): Promise<unknown> => {
    const answer = await block.call("POST", "/volumes", { body: { volume } });
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([413, "0"]);
    return at(answer, "overLimit.message");
  };
  expect(await refused({ size: 5 })).toContain("larger than maximum allowed limit 4G");
  const first = await block.createVolume({ size: 3, volume_type: "small" });
  expect(await refused({ size: 1, volume_type: "small" })).toContain("volumes_small");
  expect(await refused({ size: 3 })).toContain("Requested 3G, quota is 5G and 3G has been consumed");
  const second = await block.createVolume({ size: 1 });
  expect(await refused({ size: 1 })).toContain("Maximum number of volumes allowed (2)");
  expect((await block.act(second, "os-extend", { new_size: 3 })).status).toBe(413);
  expect(await block.statusOf(second)).toBe("available");
  const limits = await block.call("GET", "/limits");
  expect(at(limits, "limits.absolute")).toMatchObject({
    maxTotalVolumes: 2,
    totalVolumesUsed: 2,
    totalGigabytesUsed: 4,
  });
  for (const id of [first, second]) {
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
  }
  expect(await inUse("volumes")).toBe(0);
});

it("of 20 volumes made at once as many are taken as the limit says", async () => {
  await setQuota({ volumes: 7, gigabytes: 100, per_volume_gigabytes: -1, volumes_small: -1 });
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => block.call("POST", "/volumes", { body: { volume: { size: 1 } } })),
  );
  const statuses = answers.map(({ status }) => status);
  expect(statuses.filter((status) => status === 202)).toHaveLength(7);
  expect(statuses.filter((status) => status === 413)).toHaveLength(13);
  expect(await inUse("volumes")).toBe(7);
  for (const answer of answers.filter(({ status }) => status === 202)) {
    const id = String(at(answer, "volume.id"));
    await block.until(id, "available");
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
  }
});

it("limits are set by administrators, whole or not at all, and forgotten again", async () => {
  const path = `/os-quota-sets/${OTHER_PROJECT}`;
  expect((await block.call("PUT", path, { body: { quota_set: { volumes: 1 } } })).status).toBe(403);
  expect((await block.call("GET", path)).status).toBe(403);
  for (const wrong of [
    { volumes: 1, nothing: 1 },
    { volumes: -2 },
    { volumes: "x" },
    { volumes: 1.5 },
    { volumes: 2 ** 31 },
  ])
    expect([wrong, (await block.asAdmin("PUT", path, { quota_set: wrong })).status]).toEqual([wrong, 400]);
  expect(at(await block.asAdmin("GET", path), "quota_set.volumes")).toBe(10);
  expect(at(await block.asAdmin("PUT", path, { quota_set: { volumes: 99, force: true } }), "quota_set.volumes")).toBe(
    99,
  );
  expect(at(await block.asAdmin("GET", path), "quota_set.volumes")).toBe(99);
  expect(at(await block.asAdmin("GET", `${path}/defaults`), "quota_set.volumes")).toBe(10);
  expect((await block.asAdmin("DELETE", path)).status).toBe(200);
  expect(at(await block.asAdmin("GET", path), "quota_set.volumes")).toBe(10);
  const usual = { quota_class_set: { volumes: 11 } };
  expect(at(await block.asAdmin("PUT", "/os-quota-class-sets/default", usual), "quota_class_set.volumes")).toBe(11);
  expect(at(await block.asAdmin("GET", path), "quota_set.volumes")).toBe(11);
  await block.asAdmin("PUT", "/os-quota-class-sets/default", { quota_class_set: { volumes: 10 } });
});

it("types are made, shown, changed and deleted; private ones are seen by whom they were given to", async () => {
  const made = await block.asAdmin("POST", "/types", {
    volume_type: {
      name: "gold",
      "os-volume-type-access:is_public": false,
      extra_specs: { volume_backend_name: "lvm" },
    },
  });
  const id = String(at(made, "volume_type.id"));
  expect((await block.asAdmin("POST", "/types", { volume_type: { name: "gold" } })).status).toBe(409);
  expect((await block.asAdmin("POST", "/types", { volume_type: { name: "" } })).status).toBe(400);
  expect((await block.call("POST", "/types", { body: { volume_type: { name: "own" } } })).status).toBe(403);
  expect((await block.call("GET", `/types/${id}`)).status).toBe(404);
  expect((await block.call("POST", "/volumes", { body: { volume: { size: 1, volume_type: "gold" } } })).status).toBe(
    404,
  );
  const give = { addProjectAccess: { project: PROJECT } };
  expect((await block.asAdmin("POST", `/types/${id}/action`, give)).status).toBe(202);
  expect((await block.asAdmin("POST", `/types/${id}/action`, give)).status).toBe(409);
  expect(listAt(await block.asAdmin("GET", `/types/${id}/os-volume-type-access`), "volume_type_access")).toEqual([
    { volume_type_id: id, project_id: PROJECT },
  ]);
  const seen = await block.call("GET", `/types/${id}`);
  expect(seen.body["volume_type"]).toMatchObject({ name: "gold", is_public: false, extra_specs: {} });
  const volume = await block.createVolume({ size: 1, volume_type: "gold" });
  expect((await block.asAdmin("DELETE", `/types/${id}`)).status).toBe(400);
  const specs = `/types/${id}/extra_specs`;
  expect((await block.asAdmin("POST", specs, { extra_specs: { "a:b": "1", __proto__x: "2" } })).status).toBe(200);
  expect((await block.asAdmin("POST", specs, { extra_specs: { "a/b": "1" } })).status).toBe(400);
  expect((await block.asAdmin("PUT", `${specs}/a:b`, { "a:b": "3" })).body).toEqual({ "a:b": "3" });
  expect((await block.asAdmin("PUT", `${specs}/a:b`, { c: "3" })).status).toBe(400);
  expect((await block.asAdmin("GET", `${specs}/a:b`)).body).toEqual({ "a:b": "3" });
  expect((await block.asAdmin("DELETE", `${specs}/a:b`)).status).toBe(202);
  expect((await block.asAdmin("DELETE", `${specs}/a:b`)).status).toBe(404);
  const renamed = await block.asAdmin("PUT", `/types/${id}`, { volume_type: { name: "silver" } });
  expect(at(renamed, "volume_type.name")).toBe("silver");
  expect(
    (await block.asAdmin("POST", `/types/${id}/action`, { removeProjectAccess: { project: PROJECT } })).status,
  ).toBe(202);
  expect(
    (await block.asAdmin("POST", `/types/${id}/action`, { removeProjectAccess: { project: PROJECT } })).status,
  ).toBe(404);
  await block.call("DELETE", `/volumes/${volume}`);
  await block.until(volume, "gone");
  expect((await block.asAdmin("DELETE", `/types/${id}`)).status).toBe(202);
  expect((await block.asAdmin("GET", `/types/${id}`)).status).toBe(404);
  expect(at(await block.call("GET", "/types/default"), "volume_type.name")).toBe("__DEFAULT__");
});

it("a type that asks for what no back-end has finds no place", async () => {
  await block.asAdmin("POST", "/types", {
    volume_type: { name: "tape", extra_specs: { volume_backend_name: "tape" } },
  });
  const id = await block.createVolume({ size: 1, volume_type: "tape" }, "error");
  await block.call("DELETE", `/volumes/${id}`);
  await block.until(id, "gone");
});

it("a pool that turns out to be full is followed by another one", async () => {
  const host = createFakeVolumeHost({ first: 50, second: 40 });
  await using other = await TestBlock.start({}, host);
  const tried: string[] = [];
  const createVolume = host.createVolume.bind(host);
  host.createVolume = async (volume) => {
    tried.push(volume.pool);
    if (volume.pool === "first") throw new RingsteadError("pool-full", "it is full");
    return createVolume(volume);
  };
  const id = await other.createVolume();
  expect(tried).toEqual(["first", "second"]);
  expect(host.volumes.get(id)?.pool).toBe("second");
});

it("services, pools, zones and extensions are shown, and a host that is taken out of use gets nothing new", async () => {
  const services = listAt(await block.asAdmin("GET", "/os-services"), "services");
  expect(services.map(({ binary, host, state }) => [binary, host, state])).toEqual([
    ["cinder-scheduler", "local", "up"],
    ["cinder-volume", "local@lvm", "up"],
  ]);
  expect((await block.call("GET", "/os-services")).status).toBe(403);
  const pools = await block.asAdmin("GET", "/scheduler-stats/get_pools?detail=True");
  expect(listAt(pools, "pools")[0]).toMatchObject({ name: "local@lvm#lvm", capabilities: { total_capacity_gb: 100 } });
  expect((await block.call("GET", "/os-availability-zone")).body).toEqual({
    availabilityZoneInfo: [{ zoneName: "nova", zoneState: { available: true } }],
  });
  expect(listAt(await block.call("GET", "/extensions"), "extensions").length).toBeGreaterThan(5);
  const service = { host: "local@lvm", binary: "cinder-volume" };
  const disabled = await block.asAdmin("PUT", "/os-services/disable-log-reason", {
    ...service,
    disabled_reason: "repair",
  });
  expect(disabled.body).toMatchObject({ status: "disabled", disabled_reason: "repair" });
  const id = await block.createVolume({ size: 1 }, "error");
  expect((await block.asAdmin("PUT", "/os-services/enable", service)).body).toMatchObject({ status: "enabled" });
  expect((await block.asAdmin("PUT", "/os-services/enable", { ...service, host: "nowhere" })).status).toBe(404);
  expect((await block.asAdmin("PUT", "/os-services/freeze", { ...service, host: "nowhere" })).status).toBe(400);
  expect((await block.asAdmin("PUT", "/os-services/freeze", service)).status).toBe(501);
  await block.call("DELETE", `/volumes/${id}`);
});
