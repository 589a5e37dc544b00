import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

let block: TestBlock;
beforeAll(async () => void (block = await TestBlock.start()));
afterAll(() => block[Symbol.asyncDispose]());

const makeType = async (name: string, extraSpecs: object = {}): Promise<string> => {
  const made = await block.asAdmin("POST", "/types", { volume_type: { name, extra_specs: extraSpecs } });
  return String(at(made, "volume_type.id"));
};

it("QoS specs are made, shown, changed, given to types and taken from them, and deleted", async () => {
  const made = await block.asAdmin("POST", "/qos-specs", {
    qos_specs: { name: "fast", consumer: "front-end", total_iops_sec: 1000 },
  });
  expect(made.body["qos_specs"]).toMatchObject({
    name: "fast",
    consumer: "front-end",
    specs: { total_iops_sec: "1000" },
  });
  const id = String(at(made, "qos_specs.id"));
  const path = `/qos-specs/${id}`;
  expect((await block.asAdmin("POST", "/qos-specs", { qos_specs: { name: "fast" } })).status).toBe(409);
  expect((await block.asAdmin("POST", "/qos-specs", { qos_specs: { name: "x", consumer: "nobody" } })).status).toBe(
    400,
  );
  expect((await block.asAdmin("POST", "/qos-specs", { qos_specs: { consumer: "both" } })).status).toBe(400);
  expect((await block.call("GET", "/qos-specs")).status).toBe(403);
  expect((await block.asAdmin("PUT", path, { qos_specs: { read_iops_sec: "5", consumer: "both" } })).status).toBe(200);
  expect((await block.asAdmin("GET", path)).body["qos_specs"]).toMatchObject({
    consumer: "both",
    specs: { total_iops_sec: "1000", read_iops_sec: "5" },
  });
  expect((await block.asAdmin("PUT", `${path}/delete_keys`, { keys: ["read_iops_sec"] })).status).toBe(202);
  expect((await block.asAdmin("PUT", `${path}/delete_keys`, { keys: ["read_iops_sec"] })).status).toBe(400);
  const type = await makeType("quick");
  const written = await block.asAdmin("PUT", `/types/${type}`, { volume_type: { description: "quick" } });
  expect(written.body["volume_type"]).not.toHaveProperty("qos_specs_id");
  expect(Object.keys(written.body["volume_type"] as object)).not.toContain("os-volume-type-access:is_public");
  expect((await block.asAdmin("GET", `${path}/associate`)).status).toBe(400);
  expect((await block.asAdmin("GET", `${path}/associate?vol_type_id=${randomUUID()}`)).status).toBe(404);
  expect((await block.asAdmin("GET", `${path}/associate?vol_type_id=${type}`)).status).toBe(202);
  expect((await block.asAdmin("GET", `${path}/associations`)).body).toEqual({
    qos_associations: [{ association_type: "volume_type", id: type, name: "quick" }],
  });
  expect(at(await block.asAdmin("GET", `/types/${type}`), "volume_type.qos_specs_id")).toBe(id);
  const other = await block.asAdmin("POST", "/qos-specs", { qos_specs: { name: "other" } });
  const otherPath = `/qos-specs/${String(at(other, "qos_specs.id"))}`;
  expect((await block.asAdmin("GET", `${otherPath}/associate?vol_type_id=${type}`)).status).toBe(400);
  expect((await block.asAdmin("DELETE", path)).status).toBe(400);
  expect((await block.asAdmin("GET", `${path}/disassociate?vol_type_id=${type}`)).status).toBe(202);
  expect((await block.asAdmin("GET", `${otherPath}/associate?vol_type_id=${type}`)).status).toBe(202);
  expect((await block.asAdmin("GET", `${otherPath}/disassociate_all`)).status).toBe(202);
  await block.asAdmin("GET", `${path}/associate?vol_type_id=${type}`);
  expect((await block.asAdmin("DELETE", `${path}?force=True`)).status).toBe(202);
  expect((await block.asAdmin("GET", path)).status).toBe(404);
  expect(at(await block.asAdmin("GET", `/types/${type}`), "volume_type.qos_specs_id")).toBe(null);
  expect(listAt(await block.asAdmin("GET", "/qos-specs"), "qos_specs").map(({ name }) => name)).toEqual(["other"]);
});

it("limits for the front end are told to who connects, those for the back end are not", async () => {
  for (const [consumer, shown] of [
    ["front-end", { total_iops_sec: "100" }],
    ["back-end", null],
  ] as const) {
    const type = await makeType(`of ${consumer}`);
    const made = await block.asAdmin("POST", "/qos-specs", {
      qos_specs: { name: consumer, consumer, total_iops_sec: "100" },
    });
    await block.asAdmin("GET", `/qos-specs/${String(at(made, "qos_specs.id"))}/associate?vol_type_id=${type}`);
    const volume = await block.createVolume({ size: 1, volume_type: type });
    const attached = await block.call("POST", "/attachments", {
      body: { attachment: { volume_uuid: volume, connector: { host: "elsewhere" } } },
    });
    expect(at(attached, "attachment.connection_info.qos_specs")).toEqual(shown);
  }
});

it("a type's encryption is a record; a volume of it is not made unencrypted", async () => {
  const type = await makeType("secret");
  const path = `/types/${type}/encryption`;
  expect((await block.asAdmin("GET", path)).body).toEqual({});
  const wanted = { provider: "luks", control_location: "front-end", cipher: "aes-xts-plain64", key_size: 256 };
  expect((await block.asAdmin("POST", path, { encryption: { ...wanted, control_location: "moon" } })).status).toBe(400);
  expect((await block.asAdmin("POST", path, { encryption: { provider: "luks" } })).status).toBe(400);
  expect((await block.call("POST", path, { body: { encryption: wanted } })).status).toBe(403);
  const made = await block.asAdmin("POST", path, { encryption: wanted });
  expect(made.body["encryption"]).toMatchObject({ ...wanted, volume_type_id: type });
  expect((await block.asAdmin("POST", path, { encryption: wanted })).status).toBe(400);
  const id = String(at(made, "encryption.encryption_id"));
  expect((await block.asAdmin("GET", `${path}/cipher`)).body).toEqual({ cipher: "aes-xts-plain64" });
  expect((await block.asAdmin("GET", `${path}/colour`)).status).toBe(404);
  expect((await block.asAdmin("PUT", `${path}/${id}`, { encryption: { key_size: 512 } })).status).toBe(200);
  expect((await block.asAdmin("PUT", `${path}/${type}`, { encryption: { cipher: "aes" } })).status).toBe(200);
  expect((await block.asAdmin("GET", path)).body).toMatchObject({ key_size: 512, cipher: "aes", provider: "luks" });
  expect((await block.call("POST", "/volumes", { body: { volume: { size: 1, volume_type: type } } })).status).toBe(501);
  expect((await block.asAdmin("DELETE", `${path}/${id}`)).status).toBe(202);
  expect((await block.asAdmin("DELETE", `${path}/${id}`)).status).toBe(404);
  expect((await block.asAdmin("PUT", `${path}/${id}`, { encryption: { key_size: 1 } })).status).toBe(404);
  const volume = await block.createVolume({ size: 1, volume_type: type });
  expect((await block.asAdmin("POST", path, { encryption: wanted })).status).toBe(400);
  expect((await block.call("GET", `/volumes/${volume}/encryption`)).body).toEqual({ encryption_key_id: null });
  expect((await block.call("GET", `/volumes/${volume}/encryption`, { token: `member:${OTHER_PROJECT}` })).status).toBe(
    404,
  );
});

it("a project's volumes that name no type have that project's, since 3.62", async () => {
  const type = await makeType("usual");
  const path = `/default-types/${PROJECT}`;
  const wanted = (name: string) => block.asAdmin("PUT", path, { default_type: { volume_type: name } });
  expect((await block.call("GET", "/default-types")).status).toBe(403);
  expect(
    (await block.call("GET", "/default-types", { token: `admin:${PROJECT}`, version: "volume 3.61" })).status,
  ).toBe(404);
  expect((await block.asAdmin("GET", path)).status).toBe(404);
  expect((await wanted("nothing")).status).toBe(400);
  expect((await wanted("usual")).body).toEqual({ default_type: { project_id: PROJECT, volume_type_id: type } });
  expect((await block.asAdmin("GET", path)).body).toEqual({
    default_type: { project_id: PROJECT, volume_type_id: type },
  });
  expect(listAt(await block.asAdmin("GET", "/default-types"), "default_types")).toEqual([
    { project_id: PROJECT, volume_type_id: type },
  ]);
  const volume = await block.createVolume({ size: 1 });
  expect(at(await block.call("GET", `/volumes/${volume}`), "volume.volume_type")).toBe("usual");
  expect((await block.asAdmin("DELETE", `/types/${type}`)).status).toBe(400);
  expect((await block.asAdmin("DELETE", path)).status).toBe(204);
  expect((await block.asAdmin("GET", path)).status).toBe(404);
});

it("a volume's image metadata are set, shown with it, and unset", async () => {
  const id = await block.createVolume();
  const set = await block.act(id, "os-set_image_metadata", { metadata: { os_distro: "debian", min_ram: "1" } });
  expect([set.status, set.body]).toEqual([200, { metadata: { os_distro: "debian", min_ram: "1" } }]);
  expect((await block.act(id, "os-set_image_metadata", { metadata: { x: 1 } })).status).toBe(400);
  expect((await block.act(id, "os-unset_image_metadata", { key: "min_ram" })).status).toBe(200);
  expect((await block.act(id, "os-unset_image_metadata", { key: "min_ram" })).status).toBe(404);
  expect((await block.act(id, "os-show_image_metadata")).body).toEqual({ metadata: { os_distro: "debian" } });
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.volume_image_metadata")).toEqual({
    os_distro: "debian",
  });
  expect((await block.act(id, "os-set_image_metadata", { metadata: {} }, `reader:${PROJECT}`)).status).toBe(403);
});
