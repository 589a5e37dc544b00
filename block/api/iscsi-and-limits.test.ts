import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { at, listAt, PROJECT, TestBlock } from "../test-block.ts";

const INITIATOR = "iqn.1993-08.org.debian:01:1";

let block: TestBlock;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.start();
});
afterAll(() => block[Symbol.asyncDispose]());

const newType = async (name: string, specs: object): Promise<string> => {
  const made = await block.asAdmin("POST", "/types", { volume_type: { name, extra_specs: specs } });
  expect(made.status).toBe(200);
  return String(at(made, "volume_type.id"));
};

it("a volume whose type asks for iSCSI is connected so, with what os-brick's connector reads", async () => {
  await newType("over iSCSI", { storage_protocol: "iSCSI" });
  const id = await block.createVolume({ size: 1, volume_type: "over iSCSI" });
  const connect = (connector: object) =>
    block.call("POST", "/attachments", { body: { attachment: { volume_uuid: id, connector } } });
  const nameless = await connect({ host: "elsewhere" });
  expect([nameless.status, JSON.stringify(nameless.body)]).toEqual([
    400,
    expect.stringContaining("required information: initiator"),
  ]);
  expect((await connect({ host: "elsewhere", initiator: "iqn.a,password=mine" })).status).toBe(400);
  const connected = await connect({ host: "elsewhere", initiator: INITIATOR });
  const attachment = at(connected, "attachment.id");
  expect(at(connected, "attachment.connection_info")).toEqual({
    driver_volume_type: "iscsi",
    volume_id: id,
    attachment_id: attachment,
    access_mode: "rw",
    encrypted: false,
    qos_specs: null,
    cacheable: false,
    discard: true,
    target_discovered: false,
    target_portal: "127.0.0.1:3260",
    target_iqn: `iqn.2010-10.org.openstack:volume-${id}`,
    target_lun: 1,
    target_portals: ["127.0.0.1:3260"],
    target_iqns: [`iqn.2010-10.org.openstack:volume-${id}`],
    target_luns: [1],
    auth_method: "CHAP",
    auth_username: attachment,
    auth_password: "secretsecretsecr",
  });
});

it("who may only look at attachments is told where they are, and nothing that lets him in", async () => {
  await newType("secret", { storage_protocol: "iSCSI" });
  const id = await block.createVolume({ size: 1, volume_type: "secret" });
  const connector = { host: "elsewhere", initiator: INITIATOR };
  const made = await block.call("POST", "/attachments", { body: { attachment: { volume_uuid: id, connector } } });
  const path = `/attachments/${String(at(made, "attachment.id"))}`;
  const seenBy = async (role: string): Promise<readonly unknown[]> => {
    const token = `${role}:${PROJECT}`;
    const listed = await block.call("GET", `/attachments/detail?volume_id=${id}`, { token });
    return [
      at(await block.call("GET", path, { token }), "attachment.connection_info"),
      ...listAt(listed, "attachments").map((one) => one["connection_info"]),
    ];
  };
  for (const role of ["member", "admin", "service"])
    for (const info of await seenBy(role)) expect(info).toHaveProperty("auth_password", "secretsecretsecr");
  const shown = await seenBy("reader");
  expect(shown).toHaveLength(2);
  expect(JSON.stringify(shown)).not.toContain("secretsecret");
  for (const info of shown) {
    expect(info).toMatchObject({ target_iqn: `iqn.2010-10.org.openstack:volume-${id}`, auth_method: "CHAP" });
    expect(info).not.toHaveProperty("auth_username");
  }
});

const untilLimits = async (id: string, limits: object | undefined): Promise<void> => {
  for (let attempt = 0; attempt < 400; attempt++) {
    if (JSON.stringify(block.host.limits.get(id)) === JSON.stringify(limits)) return;
    await sleep(25);
  }
  expect(block.host.limits.get(id)).toEqual(limits);
};

it("a host is told what volumes of a type may do: when it is associated, changed, when they grow, and when it is no more", async () => {
  const type = await newType("limited", {});
  const fields = { name: "some", consumer: "back-end", read_iops_sec_per_gib: "10", total_bytes_sec: "4096" };
  const made = await block.asAdmin("POST", "/qos-specs", { qos_specs: fields });
  const specs = `/qos-specs/${String(at(made, "qos_specs.id"))}`;
  const id = await block.createVolume({ volume_type: "limited", size: 2 });
  await block.asAdmin("GET", `${specs}/associate?vol_type_id=${type}`);
  await untilLimits(id, { "iops-read": 20, "bytes-total": 4096 });
  await block.call("POST", `/volumes/${id}/action`, { body: { "os-extend": { new_size: 5 } } });
  await untilLimits(id, { "iops-read": 50, "bytes-total": 4096 });
  await block.asAdmin("PUT", specs, { qos_specs: { total_bytes_sec: "8192", total_bytes_sec_max: "16384" } });
  await untilLimits(id, { "iops-read": 50, "bytes-total": 8192, "bytes-total-max": 16_384 });
  await block.asAdmin("GET", `${specs}/disassociate_all`);
  await untilLimits(id, undefined);
});
