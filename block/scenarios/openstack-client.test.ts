import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { adminSession } from "../../identity/scenarios/cloud-session.ts";
import { cleanEnvironment, TestInstallation } from "../../scripts/scenarios/installation.ts";
import { createOpenstackShell, inShell } from "./openstack-shell.ts";

const installation = new TestInstallation(["--only", "block"]);

const { run: openstack, valuesIn: allIn } = createOpenstackShell(installation.folder);
const all = (...commands: string[]): Promise<readonly unknown[]> => allIn("3", ...commands);

type Thing = Readonly<Record<string, unknown>>;

const thing = (value: unknown): Thing => value as Thing;
const list = (value: unknown): readonly Thing[] => value as Thing[];

let known: Promise<string> | undefined;
const adminToken = async (): Promise<string> => (await adminSession(installation.folder)).token;

const volumeStatus = async (name: string): Promise<unknown> => {
  known ??= adminToken();
  const token = await known;
  const base = String(installation.ready().endpoints["block"]);
  const answer = await fetch(`${base}/volumes/detail?name=${name}`, { headers: { "x-auth-token": token } });
  const { volumes } = (await answer.json()) as { volumes: Thing[] };
  return volumes[0]?.["status"] ?? "gone";
};

const until = async (name: string, status: string): Promise<void> => {
  for (let waited = 0; waited < 120_000; waited += 200) {
    if ((await volumeStatus(name)) === status) return;
    await sleep(200);
  }
  throw new Error(`${name} is ${String(await volumeStatus(name))}, not ${status}`);
};

const run = promisify(execFile);

/** Cinder's own client, with what is in openrc. */
const cinder = async (...words: string[]): Promise<string> => {
  const [shell, first] = inShell(installation.folder, "cinder");
  return (await run(shell, [...first, ...words], { env: cleanEnvironment() })).stdout;
};

const adminProjectId = async (): Promise<string> => {
  const [project] = await all("project show admin -f json");
  return String(thing(project)["id"]);
};

beforeAll(() => installation.up());
afterAll(() => installation[Symbol.asyncDispose]());

it("a volume is made, shown, changed, extended and deleted, by the client as it is", async () => {
  const [made] = await all("volume create --size 1 --description first --property purpose=test disk -f json");
  expect(thing(made)).toMatchObject({ name: "disk", size: 1, type: "__DEFAULT__", properties: { purpose: "test" } });
  await until("disk", "available");
  const [shown, , renamed] = await all(
    "volume show disk -f json",
    "volume list -f json",
    "volume set --name plate --property colour=red --bootable --read-only disk",
    "volume show plate -f json",
  );
  expect(thing(shown)).toMatchObject({
    status: "available",
    "os-vol-host-attr:host": expect.stringMatching(/^local@.+#.+$/),
  });
  expect(thing(renamed)).toMatchObject({
    name: "plate",
    bootable: "true",
    properties: { purpose: "test", colour: "red", readonly: "True" },
  });
  await all("volume set --read-write plate", "volume set --size 2 plate");
  await until("plate", "available");
  const [grown] = await all("volume unset --property colour plate", "volume show plate -f json");
  expect(thing(grown)).toMatchObject({ size: 2 });
  expect(thing(grown)["properties"]).not.toHaveProperty("colour");
  const { errors } = await openstack(["volume set --size 1 plate", "volume show nothing"]);
  expect(errors).toContain("New size must be greater than 2 GB");
  expect(errors).toContain("No volume with a name or ID of 'nothing' exists");
  await all("volume delete plate");
  await until("plate", "gone");
  expect(await all("volume list -f json")).toEqual([[]]);
});

it("types, quotas, services, zones and pools are managed by the client as it is", async () => {
  const values = await all(
    "volume type create --private --property volume_backend_name=nothing gold -f json",
    "volume type set --project admin gold",
    "volume type show gold -f json",
    "volume type list --long -f json",
    "volume service list -f json",
    "availability zone list --volume -f json",
  );
  const [, shown, types, services, zones] = values;
  expect(thing(shown)).toMatchObject({
    name: "gold",
    is_public: false,
    properties: { volume_backend_name: "nothing" },
  });
  expect(list(types).map(({ Name }) => Name)).toContain("__DEFAULT__");
  expect(list(services).map((one) => [one["Binary"], one["State"]])).toContainEqual(["cinder-volume", "up"]);
  expect(list(zones).map((one) => one["Zone Name"])).toEqual(["nova"]);
  expect(await cinder("get-pools")).toMatch(/local@.+#.+/);
  // `openstack quota set` asks for the compute service first; the service's own client does not.
  const projectId = await adminProjectId();
  await cinder("quota-update", "--volumes", "1", projectId);
  expect(await cinder("quota-show", projectId)).toMatch(/\| volumes +\| 1 +\|/);
  await all("volume create --size 1 one");
  const { errors } = await openstack(["volume create --size 1 two"]);
  expect(errors).toContain("VolumeLimitExceeded");
  await until("one", "available");
  await all("volume delete one");
  await until("one", "gone");
  await all("volume type unset --project admin gold", "volume type delete gold");
  await cinder("quota-delete", projectId);
  expect(await cinder("quota-show", projectId)).toMatch(/\| volumes +\| 10 +\|/);
});

/** Resolves once all that the API lists there has the status, or once it lists nothing. */
const untilListed = async (path: string, list: string, status: string | undefined): Promise<void> => {
  known ??= adminToken();
  const headers = { "x-auth-token": await known, "openstack-api-version": "volume 3.60" };
  const base = String(installation.ready().endpoints["block"]);
  for (let waited = 0; waited < 60_000; waited += 200) {
    const answer = (await (await fetch(base + path, { headers })).json()) as Record<string, Thing[]>;
    const found = answer[list] ?? [];
    if (status === undefined ? found.length === 0 : found.length > 0 && found.every((one) => one["status"] === status))
      return;
    await sleep(200);
  }
  throw new Error(`${path} is not ${status ?? "empty"}`);
};

it("snapshots, what volumes are made of them, limits and offers are managed by the client as it is", async () => {
  await all("volume create --size 1 disk");
  await until("disk", "available");
  const [made] = await all(
    "volume snapshot create --volume disk --description first --property a=b early -f json",
    "volume snapshot create --volume disk late",
    "volume qos create --consumer front-end --property total_iops_sec=100 slow",
    "volume type create limited",
    "volume qos associate slow limited",
    "volume type create --encryption-provider luks --encryption-control-location front-end secret",
  );
  expect(thing(made)).toMatchObject({ name: "early", description: "first", size: 1, properties: { a: "b" } });
  await untilListed("/snapshots", "snapshots", "available");
  const [shown, listed, qos, types] = await all(
    "volume snapshot set --name begin --property c=d early",
    "volume snapshot show begin -f json",
    "volume snapshot list --long -f json",
    "volume qos show slow -f json",
    "volume type list --encryption-type -f json",
    "volume create --snapshot begin --type limited copy",
  );
  expect(thing(shown)).toMatchObject({ status: "available", properties: { a: "b", c: "d" } });
  expect(list(listed).map(({ Name }) => Name)).toEqual(["late", "begin"]);
  expect(thing(qos)).toMatchObject({ consumer: "front-end", associations: ["limited"] });
  expect(list(types).find(({ Name }) => Name === "secret")?.["Encryption"]).toMatchObject({ provider: "luks" });
  await until("copy", "available");
  const { errors } = await openstack(["volume delete disk"]);
  expect(errors).toContain("have snapshots");
  await cinder("--os-volume-api-version", "3.40", "revert-to-snapshot", String(list(listed)[0]?.["ID"]));
  await until("disk", "available");
  const [offered] = await all("volume transfer request create --name gift copy -f json");
  const { auth_key: key, id } = thing(offered);
  const [taken] = await all(`volume transfer request accept --auth-key ${String(key)} ${String(id)} -f json`);
  expect(thing(taken)).toMatchObject({ name: "gift" });
  await until("copy", "available");
  const [retyped] = await all(
    "volume snapshot delete late",
    "volume delete copy",
    "volume set --type limited disk",
    "volume show disk -f json",
    "volume delete --purge disk",
  );
  expect(thing(retyped)).toMatchObject({ type: "limited" });
  await until("copy", "gone");
  await until("disk", "gone");
  await all("volume qos disassociate --all slow", "volume qos delete slow", "volume type delete limited secret");
});

it("groups, their snapshots and messages are managed by the client as it is", async () => {
  const [made] = await allIn(
    "3.60",
    "volume group type create together -f json",
    "volume group create --name all together __DEFAULT__ -f json",
    "volume create --size 1 one",
    "volume create --size 900 toolarge",
  );
  expect(thing(made)).toMatchObject({ Name: "together" });
  await until("one", "available");
  await until("toolarge", "error");
  const groups = await allIn("3.60", "volume group set --name both all", "volume group list -f json");
  const [group] = list(groups.at(-1));
  expect(thing(group)).toMatchObject({ Name: "both", Status: "available" });
  const token = await adminToken();
  const base = String(installation.ready().endpoints["block"]);
  const headers = { "x-auth-token": token, "openstack-api-version": "volume 3.60", "content-type": "application/json" };
  const { volumes } = (await (await fetch(`${base}/volumes?name=one`, { headers })).json()) as { volumes: Thing[] };
  const body = JSON.stringify({ group: { add_volumes: volumes[0]?.["id"] } });
  const added = await fetch(`${base}/groups/${String(thing(group)["ID"])}`, { method: "PUT", headers, body });
  expect(added.status).toBe(202);
  await allIn("3.60", "volume group snapshot create --name point both");
  await untilListed("/group_snapshots/detail", "group_snapshots", "available");
  const [snapshots, messages] = await allIn(
    "3.60",
    "volume group snapshot list -f json",
    "volume message list -f json",
    "volume group snapshot delete point",
    "volume delete toolarge",
  );
  expect(list(snapshots)).toMatchObject([{ Name: "point" }]);
  expect(list(messages)).toMatchObject([
    { "User Message": "schedule allocate volume:Could not find any available weighted backend." },
  ]);
  await untilListed("/group_snapshots/detail", "group_snapshots", undefined);
  await allIn("3.60", "volume group delete --force both");
  await until("one", "gone");
  await untilListed("/groups/detail", "groups", undefined);
  await allIn("3.60", "volume group type delete together");
});

it("consistency groups and their snapshots are managed by the client as it is", async () => {
  const [made] = await all(
    "consistency group create --volume-type __DEFAULT__ --description first all -f json",
    "volume create --size 1 --consistency-group all one",
  );
  const id = String(thing(made)["id"]);
  await until("one", "available");
  const [shown, groups] = await all(
    "consistency group set --name both all",
    "consistency group show both -f json",
    "consistency group list --long -f json",
    "consistency group snapshot create --consistency-group both point",
  );
  expect(thing(shown)).toMatchObject({ id, name: "both", status: "available", description: "first" });
  expect(list(groups)).toMatchObject([{ ID: id, Name: "both", Status: "available" }]);
  await untilListed("/cgsnapshots/detail", "cgsnapshots", "available");
  const [snapshots] = await all("consistency group snapshot list --long -f json");
  // `openstack` cannot print what it gets for that, whoever gave it; the service's own client can.
  await cinder("consisgroup-create-from-src", "--cgsnapshot", "point", "--name", "copy");
  expect(list(snapshots)).toMatchObject([{ Name: "point", "ConsistencyGroup ID": id, Status: "available" }]);
  await untilListed("/consistencygroups/detail", "consistencygroups", "available");
  // Groups of volumes, which the same client knows under another name, are others.
  expect(await allIn("3.60", "volume group list -f json")).toEqual([[]]);
  await all("consistency group snapshot delete point");
  await untilListed("/cgsnapshots/detail", "cgsnapshots", undefined);
  await all("consistency group delete --force both copy");
  await untilListed("/consistencygroups/detail", "consistencygroups", undefined);
  await until("one", "gone");
});

it("an attachment opens the volume, and all goes on after everything was killed", async () => {
  await all("volume create --size 1 kept");
  await until("kept", "available");
  const token = await adminToken();
  const headers = { "x-auth-token": token, "openstack-api-version": "volume 3.54", "content-type": "application/json" };
  const call = async (method: string, path: string, body?: object): Promise<Thing> => {
    const base = String(installation.ready().endpoints["block"]);
    const answer = await fetch(base + path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? {} : (JSON.parse(text) as Thing);
  };
  const { volumes } = (await call("GET", "/volumes?name=kept")) as { volumes: { id: string }[] };
  const id = volumes[0]?.id ?? "";
  const fields = { volume_uuid: id, instance_uuid: id, connector: { host: "local" } };
  const { attachment } = (await call("POST", "/attachments", { attachment: fields })) as {
    attachment: { id: string; connection_info: Thing };
  };
  expect(attachment.connection_info).toMatchObject({ driver_volume_type: "nbd", transport: "unix" });
  await call("POST", `/attachments/${attachment.id}/action`, { "os-complete": {} });
  expect(await volumeStatus("kept")).toBe("in-use");
  await sleep(1_500);
  expect(installation.ready().processes.map(({ role }) => role)).toContain(`export:${id}`);
  await installation.crash();
  expect(await volumeStatus("kept")).toBe("in-use");
  await call("DELETE", `/attachments/${attachment.id}`);
  expect(await volumeStatus("kept")).toBe("available");
  await all("volume delete kept");
  await until("kept", "gone");
});
