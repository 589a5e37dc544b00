import { afterAll, beforeAll, expect, it } from "vitest";
import { at, listAt, PROJECT, TestBlock } from "../test-block.ts";

const ADMIN = `admin:${PROJECT}`;
const HOST = "host=local@lvm%23lvm";

let block: TestBlock;
beforeAll(async () => void (block = await TestBlock.start()));
afterAll(() => block[Symbol.asyncDispose]());

const usage = async (resource: string) =>
  at(await block.call("GET", `/os-quota-sets/${PROJECT}?usage=True`), `quota_set.${resource}.in_use`);

it("a volume is forgotten and taken up again, and the host has it all the time", async () => {
  const [id, other] = [await block.createVolume({ size: 2 }), await block.createVolume()];
  expect((await block.act(id, "os-unmanage")).status).toBe(403);
  expect((await block.act(id, "os-unmanage", null, ADMIN)).status).toBe(202);
  expect([await block.statusOf(id), block.host.volumes.has(id), await usage("gigabytes")]).toEqual(["gone", true, 1]);
  const listed = await block.asAdmin("GET", `/manageable_volumes/detail?${HOST}&sort=size:asc`);
  expect(listAt(listed, "manageable-volumes")).toEqual([
    {
      reference: { "source-name": `volume-${other}` },
      size: 1,
      safe_to_manage: false,
      reason_not_safe: "already managed",
      cinder_id: other,
      extra_info: null,
    },
    {
      reference: { "source-name": `volume-${id}` },
      size: 2,
      safe_to_manage: true,
      reason_not_safe: null,
      cinder_id: null,
      extra_info: null,
    },
  ]);
  const page = await block.asAdmin("GET", `/os-volume-manage?${HOST}&limit=1`);
  expect(page.body).toMatchObject({ "manageable-volumes_links": [{ rel: "next" }] });
  expect((await block.asAdmin("GET", "/manageable_volumes")).status).toBe(400);
  expect((await block.asAdmin("GET", "/manageable_volumes?host=mars@lvm")).status).toBe(404);
  expect((await block.call("GET", `/manageable_volumes?${HOST}`)).status).toBe(403);
  const manage = (ref: object, more: object = {}) =>
    block.asAdmin("POST", "/manageable_volumes", { volume: { host: "local@lvm#lvm", ref, ...more } });
  expect((await manage({})).status).toBe(400);
  expect((await manage({ "source-name": `volume-${other}` })).status).toBe(400);
  await block.asAdmin("POST", "/types", {
    volume_type: { name: "tape", extra_specs: { volume_backend_name: "tape" } },
  });
  expect((await manage({ "source-name": `volume-${id}` }, { volume_type: "tape" })).status).toBe(400);
  const back = await manage({ "source-name": `volume-${id}` }, { name: "back", bootable: true, metadata: { a: "1" } });
  expect([back.status, back.body["volume"]]).toMatchObject([
    202,
    { id, name: "back", size: 2, status: "available", bootable: "true", metadata: { a: "1" } },
  ]);
  expect(await usage("gigabytes")).toBe(3);
  expect((await manage({ "source-name": `volume-${id}` })).status).toBe(400);
  expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(202);
  await block.until(id, "gone");
  expect(block.host.volumes.has(id)).toBe(false);
});

it("a snapshot is forgotten and taken up again; until then its volume stays, and is not reverted past it", async () => {
  const volume = await block.createVolume();
  const [first, latest] = [await block.createSnapshot(volume), await block.createSnapshot(volume)];
  const unmanage = (id: string, token = ADMIN) =>
    block.call("POST", `/snapshots/${id}/action`, { body: { "os-unmanage": null }, token });
  expect((await unmanage(latest, `member:${PROJECT}`)).status).toBe(403);
  expect((await unmanage(latest)).status).toBe(202);
  expect((await block.call("GET", `/snapshots/${latest}`)).status).toBe(404);
  expect(block.host.volumes.get(volume)?.snapshots.has(latest)).toBe(true);
  const listed = listAt(await block.asAdmin("GET", `/manageable_snapshots?${HOST}`), "manageable-snapshots");
  expect(listed).toContainEqual({
    reference: { "source-name": `snapshot-${latest}` },
    source_reference: { "source-name": `volume-${volume}` },
    size: 1,
    safe_to_manage: true,
  });
  expect((await block.act(volume, "revert", { snapshot_id: first })).status).toBe(400);
  expect((await block.act(volume, "os-unmanage", null, ADMIN)).status).toBe(400);
  expect((await block.call("DELETE", `/volumes/${volume}?cascade=True`)).status).toBe(400);
  const manage = (id: string) =>
    block.asAdmin("POST", "/os-snapshot-manage", {
      snapshot: { volume_id: volume, ref: { "source-name": `snapshot-${id}` }, name: "back" },
    });
  expect((await manage(first)).status).toBe(400);
  const back = await manage(latest);
  expect([back.status, back.body["snapshot"]]).toMatchObject([202, { id: latest, name: "back", status: "available" }]);
  expect((await block.act(volume, "revert", { snapshot_id: latest })).status).toBe(202);
  await block.until(volume, "available");
  expect((await block.call("DELETE", `/volumes/${volume}?cascade=True`)).status).toBe(202);
  await block.until(volume, "gone");
});
