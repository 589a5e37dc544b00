import { afterAll, beforeAll, beforeEach, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { at, type Answer, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

const INSTANCE = "55555555-5555-4555-8555-555555555555";
const CONNECTOR = {
  host: "elsewhere",
  ip: "192.0.2.1",
  initiator: "iqn.1993-08.org.debian:01:1",
  mountpoint: "/dev/vdb",
};

let block: TestBlock;
let id: string;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.start({ giveUpMs: 300 });
});
beforeEach(async () => {
  block.host.intercept = () => {};
  id = await block.createVolume();
});
afterAll(() => block[Symbol.asyncDispose]());

const attach = (fields: object = {}): Promise<Answer> =>
  block.call("POST", "/attachments", { body: { attachment: { volume_uuid: id, instance_uuid: INSTANCE, ...fields } } });
const exportsNow = (): string[] => [...(block.host.volumes.get(id)?.exports.keys() ?? [])];

it("an attachment is reserved, connected, completed and deleted, and the volume follows", async () => {
  const reserved = await attach();
  expect(reserved.status).toBe(200);
  expect(reserved.body["attachment"]).toMatchObject({
    status: "reserved",
    volume_id: id,
    instance: INSTANCE,
    connection_info: {},
  });
  expect(await block.statusOf(id)).toBe("reserved");
  expect((await attach()).status).toBe(400);
  const attachment = `/attachments/${String(at(reserved, "attachment.id"))}`;
  const connected = await block.call("PUT", attachment, { body: { attachment: { connector: CONNECTOR } } });
  expect(connected.status).toBe(200);
  expect(connected.body["attachment"]).toMatchObject({
    status: "attaching",
    attach_mode: "rw",
    connection_info: { driver_volume_type: "nbd", transport: "tcp", access_mode: "rw", volume_id: id },
  });
  expect(await block.statusOf(id)).toBe("attaching");
  expect((await block.call("PUT", attachment, { body: { attachment: { connector: CONNECTOR } } })).status).toBe(400);
  expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(400);
  expect((await block.call("POST", `${attachment}/action`, { body: { "os-complete": null } })).status).toBe(204);
  expect((await block.call("POST", `${attachment}/action`, { body: { "os-complete": null } })).status).toBe(400);
  const shown = await block.call("GET", `/volumes/${id}`);
  expect(shown.body["volume"]).toMatchObject({
    status: "in-use",
    attachments: [{ server_id: INSTANCE, device: "/dev/vdb", host_name: "elsewhere", volume_id: id }],
  });
  expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(400);
  expect(exportsNow()).toHaveLength(1);
  const deleted = await block.call("DELETE", attachment);
  expect([deleted.status, deleted.body]).toEqual([200, { attachments: [] }]);
  expect(await block.statusOf(id)).toBe("available");
  expect(exportsNow()).toEqual([]);
  expect((await block.call("GET", attachment)).status).toBe(404);
});

it("clients on the same machine are given a socket, all others TLS", async () => {
  const local = await attach({ connector: { host: "local" } });
  expect(local.body["attachment"]).toMatchObject({
    connection_info: { transport: "unix", uri: expect.stringMatching(/^nbd\+unix:/) },
  });
});

it("a read-only volume is attached for reading only", async () => {
  expect((await block.act(id, "os-update_readonly_flag", { readonly: "True" })).status).toBe(202);
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.metadata.readonly")).toBe("True");
  expect((await attach({ connector: CONNECTOR, mode: "rw" })).status).toBe(400);
  const answer = await attach({ connector: CONNECTOR });
  expect(answer.body["attachment"]).toMatchObject({ attach_mode: "ro", connection_info: { access_mode: "ro" } });
});

it("attachments are listed by what they are of, and those of others are not there", async () => {
  const made = String(at(await attach(), "attachment.id"));
  const listed = async (query: string, token?: string) =>
    listAt(await block.call("GET", `/attachments${query}`, token === undefined ? {} : { token }), "attachments").map(
      (one) => one["id"],
    );
  expect(await listed(`?volume_id=${id}`)).toEqual([made]);
  expect(await listed(`?volume_id=${id}&status=attached`)).toEqual([]);
  expect(await listed(`/detail?volume_id=${id}&instance_id=${INSTANCE}`)).toEqual([made]);
  expect(await listed("", `member:${OTHER_PROJECT}`)).toEqual([]);
  expect(await listed(`?all_tenants=1&volume_id=${id}`, `admin:${OTHER_PROJECT}`)).toEqual([made]);
  const stranger = { token: `member:${OTHER_PROJECT}` };
  expect((await block.call("GET", `/attachments/${made}`, stranger)).status).toBe(404);
  expect((await block.call("DELETE", `/attachments/${made}`, stranger)).status).toBe(404);
  expect((await block.call("DELETE", `/attachments/${made}`, { token: `reader:${PROJECT}` })).status).toBe(403);
});

it("where the host cannot open a volume the attachment says so, the volume is free, and nothing stays open", async () => {
  block.host.intercept = (method) => {
    if (method === "exportVolume") throw new RingsteadError("port-unavailable", "no port is free");
  };
  const refused = await attach({ connector: CONNECTOR });
  expect(refused.status).toBe(503);
  expect(await block.statusOf(id)).toBe("available");
  const [failed] = listAt(await block.call("GET", `/attachments?volume_id=${id}`), "attachments");
  expect(failed).toMatchObject({ status: "error_attaching" });
  block.host.intercept = () => {};
  expect((await attach({ connector: CONNECTOR })).status).toBe(200);
  expect(exportsNow()).toHaveLength(1);
  expect((await block.call("DELETE", `/attachments/${String(failed?.["id"])}`)).status).toBe(200);
  expect(exportsNow()).toHaveLength(1);
});

it("where the host is silent a client is answered, and what the host did all the same is undone", async () => {
  let lost = 0;
  block.host.intercept = (method, moment) => {
    if (method !== "exportVolume" || moment !== "after") return;
    lost += 1;
    throw new RingsteadError("rpc-timeout", "the peer did not answer in time");
  };
  expect((await attach({ connector: CONNECTOR })).status).toBe(503);
  expect(lost).toBeGreaterThan(1);
  expect(exportsNow()).toEqual([]);
  expect(await block.statusOf(id)).toBe("available");
});

it("the older actions reserve, connect, attach, detach and disconnect", async () => {
  expect((await block.act(id, "os-reserve")).status).toBe(202);
  expect((await block.act(id, "os-reserve")).status).toBe(400);
  expect(await block.statusOf(id)).toBe("attaching");
  expect((await block.act(id, "os-unreserve")).status).toBe(202);
  expect(await block.statusOf(id)).toBe("available");
  await block.act(id, "os-reserve");
  const opened = await block.act(id, "os-initialize_connection", { connector: CONNECTOR });
  expect(opened.body).toMatchObject({
    connection_info: { driver_volume_type: "nbd", data: { volume_id: id, access_mode: "rw" } },
  });
  expect((await block.act(id, "os-initialize_connection", { connector: CONNECTOR })).body).toEqual(opened.body);
  expect(exportsNow()).toHaveLength(1);
  expect((await block.act(id, "os-attach", { instance_uuid: INSTANCE, mountpoint: "/dev/vdc" })).status).toBe(202);
  expect(await block.statusOf(id)).toBe("in-use");
  expect((await block.act(id, "os-begin_detaching")).status).toBe(202);
  expect((await block.act(id, "os-roll_detaching")).status).toBe(202);
  expect(await block.statusOf(id)).toBe("in-use");
  await block.act(id, "os-begin_detaching");
  expect((await block.act(id, "os-terminate_connection", { connector: CONNECTOR })).status).toBe(202);
  expect(exportsNow()).toEqual([]);
  expect((await block.act(id, "os-detach", {})).status).toBe(202);
  expect(await block.statusOf(id)).toBe("available");
  expect((await block.act(id, "os-detach", {})).status).toBe(400);
  expect((await block.act(id, "os-attach", { mountpoint: "/dev/vdc" })).status).toBe(400);
});

it("an administrator sets a status, detaches and deletes by force; nobody else does", async () => {
  const admin = `admin:${PROJECT}`;
  expect((await block.act(id, "os-reset_status", { status: "error" })).status).toBe(403);
  expect((await block.act(id, "os-reset_status", { status: "nonsense" }, admin)).status).toBe(400);
  expect((await block.act(id, "os-reset_status", { status: "error" }, admin)).status).toBe(202);
  expect(await block.statusOf(id)).toBe("error");
  await block.act(id, "os-reset_status", { status: "available" }, admin);
  await attach({ connector: CONNECTOR });
  expect((await block.act(id, "os-force_detach", {})).status).toBe(403);
  expect((await block.act(id, "os-force_detach", {}, admin)).status).toBe(202);
  expect([await block.statusOf(id), exportsNow()]).toEqual(["available", []]);
  await attach({ connector: CONNECTOR });
  expect((await block.act(id, "os-force_delete", {})).status).toBe(403);
  expect((await block.act(id, "os-force_delete", {}, admin)).status).toBe(202);
  await block.until(id, "gone");
  expect(block.host.volumes.has(id)).toBe(false);
});

it("a volume with several users is attached more than once, and free when the last has gone", async () => {
  const type = await block.asAdmin("POST", "/types", {
    volume_type: { name: `shared ${id}`, extra_specs: { multiattach: "<is> True" } },
  });
  id = await block.createVolume({ size: 1, volume_type: String(at(type, "volume_type.id")) });
  expect(at(await block.call("GET", `/volumes/${id}`), "volume.multiattach")).toBe(true);
  const made: string[] = [];
  for (const host of ["one", "two"]) {
    const attachment = await attach({ connector: { ...CONNECTOR, host } });
    made.push(String(at(attachment, "attachment.id")));
    const done = await block.call("POST", `/attachments/${made.at(-1)}/action`, { body: { "os-complete": {} } });
    expect(done.status).toBe(204);
  }
  expect(exportsNow().toSorted()).toEqual(made.toSorted());
  await block.call("DELETE", `/attachments/${made[0]}`);
  expect([await block.statusOf(id), exportsNow()]).toEqual(["in-use", [made[1]]]);
  await block.call("DELETE", `/attachments/${made[1]}`);
  expect(await block.statusOf(id)).toBe("available");
});
