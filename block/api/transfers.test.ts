import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const OTHER = `member:${OTHER_PROJECT}`;

let block: TestBlock;
let volume: string;
beforeAll(async () => {
  block = await TestBlock.start();
  for (const project of [PROJECT, OTHER_PROJECT])
    await block.asAdmin("PUT", `/os-quota-sets/${project}`, { quota_set: { volumes: 100, snapshots: 100 } });
});
beforeEach(async () => void (volume = await block.createVolume({ size: 2 })));
afterAll(() => block[Symbol.asyncDispose]());

const offer = async (path = "/volume-transfers", fields: object = {}) => {
  const answer = await block.call("POST", path, { body: { transfer: { volume_id: volume, ...fields } } });
  return { answer, id: String(at(answer, "transfer.id")), key: String(at(answer, "transfer.auth_key")) };
};
const accept = (id: string, key: string, path = "/volume-transfers") =>
  block.call("POST", `${path}/${id}/accept`, { token: OTHER, body: { accept: { auth_key: key } } });
const ownerOf = async (path: string, name: string) =>
  at(await block.asAdmin("GET", path), `${name}.os-vol-tenant-attr:tenant_id`) ??
  at(await block.asAdmin("GET", path), `${name}.os-extended-snapshot-attributes:project_id`);

it("a volume with its snapshots becomes another project's, by the key, once", async () => {
  const snapshot = await block.createSnapshot(volume);
  const { answer, id, key } = await offer("/volume-transfers", { name: "gift" });
  expect([answer.status, answer.body["transfer"]]).toMatchObject([
    202,
    { name: "gift", volume_id: volume, no_snapshots: false, source_project_id: PROJECT, accepted: false },
  ]);
  expect(await block.statusOf(volume)).toBe("awaiting-transfer");
  expect((await offer()).answer.status).toBe(400);
  expect((await block.call("DELETE", `/volumes/${volume}`)).status).toBe(400);
  const shown = await block.call("GET", `/volume-transfers/${id}`);
  expect(shown.body["transfer"]).toMatchObject({ id, name: "gift" });
  expect(JSON.stringify(shown.body)).not.toContain(key);
  expect((await block.call("GET", `/volume-transfers/${id}`, { token: OTHER })).status).toBe(404);
  expect((await accept(id, "0123456789abcdef")).status).toBe(400);
  expect((await accept(id, key)).status).toBe(202);
  expect((await accept(id, key)).status).toBe(404);
  expect(await block.statusOf(volume)).toBe("gone");
  expect(await ownerOf(`/volumes/${volume}`, "volume")).toBe(OTHER_PROJECT);
  expect(await ownerOf(`/snapshots/${snapshot}`, "snapshot")).toBe(OTHER_PROJECT);
  const usage = await block.call("GET", `/os-quota-sets/${OTHER_PROJECT}?usage=True`, { token: OTHER });
  expect(at(usage, "quota_set.snapshots.in_use")).toBe(1);
});

it("snapshots stay where they are if that is asked for", async () => {
  const snapshot = await block.createSnapshot(volume);
  const { id, key } = await offer("/volume-transfers", { no_snapshots: true });
  expect((await accept(id, key)).status).toBe(202);
  expect(await ownerOf(`/snapshots/${snapshot}`, "snapshot")).toBe(PROJECT);
  expect((await block.call("DELETE", `/volumes/${volume}`, { token: OTHER })).status).toBe(400);
});

it("the older path does the same, and both list what the project offers, page by page", async () => {
  const { id, answer } = await offer("/os-volume-transfer");
  expect(answer.status).toBe(202);
  for (const path of ["/os-volume-transfer", "/volume-transfers"]) {
    expect(listAt(await block.call("GET", path), "transfers").map((one) => one["id"])).toEqual([id]);
    expect(listAt(await block.call("GET", `${path}/detail`), "transfers")[0]).toHaveProperty("created_at");
    expect((await block.call("GET", path, { token: OTHER })).body["transfers"]).toEqual([]);
  }
  const all = await block.call("GET", "/volume-transfers?all_tenants=1", { token: `admin:${OTHER_PROJECT}` });
  expect(listAt(all, "transfers")).toHaveLength(1);
  expect((await block.call("GET", "/volume-transfers", { version: "volume 3.54" })).status).toBe(404);
  const old = await block.call("GET", `/os-volume-transfer/${id}`, { version: "volume 3.0" });
  expect(Object.keys(old.body["transfer"] as object).toSorted()).toEqual([
    "created_at",
    "id",
    "links",
    "name",
    "volume_id",
  ]);
  expect((await block.call("DELETE", `/volume-transfers/${id}`, { token: OTHER })).status).toBe(404);
  expect((await block.call("DELETE", `/volume-transfers/${id}`)).status).toBe(202);
  expect(await block.statusOf(volume)).toBe("available");
});

it("who has no room for it, or may not use its type, does not get it; the offer stands", async () => {
  const type = await block.asAdmin("POST", "/types", { volume_type: { name: "own", is_public: false } });
  const typeId = String(at(type, "volume_type.id"));
  await block.asAdmin("POST", `/types/${typeId}/action`, { addProjectAccess: { project: PROJECT } });
  await block.act(volume, "os-retype", { new_type: "own" });
  const { id, key } = await offer();
  expect((await accept(id, key)).status).toBe(400);
  await block.asAdmin("POST", `/types/${typeId}/action`, { addProjectAccess: { project: OTHER_PROJECT } });
  await block.asAdmin("PUT", `/os-quota-sets/${OTHER_PROJECT}`, { quota_set: { gigabytes: 1 } });
  expect((await accept(id, key)).status).toBe(413);
  expect(await block.statusOf(volume)).toBe("awaiting-transfer");
  await block.asAdmin("PUT", `/os-quota-sets/${OTHER_PROJECT}`, { quota_set: { gigabytes: 100 } });
  expect((await accept(id, key)).status).toBe(202);
});
