import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "../../common/clock.ts";
import { hybridClock } from "../../common/hybrid-clock.ts";
import { RpcClient } from "../../common/rpc/client.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import { type ObjectPlace, type ObjectWrite, writeObject } from "../../proxy/core/object-script.ts";
import { Ballots } from "../../proxy/object-service/ballots.ts";
import { receiveBody } from "../../proxy/object-service/body-upload.ts";
import { Containers } from "../../proxy/object-service/containers.ts";
import { encodeObjectMetadata } from "../../proxy/object-service/object-metadata.ts";
import { Objects } from "../../proxy/object-service/objects.ts";
import { RegisterIo } from "../../proxy/object-service/register-io.ts";
import { Partition, type ReplicaSet } from "../../proxy/object-service/partition.ts";
import { Partitions } from "../../proxy/object-service/partitions.ts";
import { Policies } from "../../proxy/object-service/policies.ts";
import { RowReader } from "../../proxy/object-service/row-reader.ts";
import { ScriptRunner } from "../../proxy/object-service/script-runner.ts";
import { loadRing } from "../../ring/ring-file.ts";
import { DeviceClient } from "../../storage-node/client.ts";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

const installation = new TestInstallation(["--only", "identity,object"]);
const DEVICES = ["d1", "d2", "d3", "d4"];
const SETTLED_WITHIN_MS = 40_000;

beforeAll(async () => {
  await installation.up();
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

const login = (): Promise<ObjectClient> => ObjectClient.login(installation.ready().swiftAuthV1);

/** What a proxy is made of, in this process, on the installation's own storage node. */
const proxyParts = () => {
  const paths = runtimePaths(installation.folder);
  const rpc = new RpcClient(
    paths.socket("storage-node"),
    Buffer.from(readFileSync(paths.clusterKey, "utf8").trim(), "hex"),
  );
  const rings = {
    account: loadRing(paths.ringFile("account")),
    container: loadRing(paths.ringFile("container")),
    object: loadRing(paths.ringFile("object-0")),
  };
  const partitions = new Partitions(rings, () => rpc);
  const ballots = new Ballots(hybridClock(systemClock), systemClock);
  const io = new RegisterIo(ballots);
  const runner = new ScriptRunner(io, new RowReader(io));
  const policies = new Policies([{ name: "Policy-0", index: 0, consistency: "strong", isDefault: true }]);
  return { rpc, rings, partitions, io, runner, containers: new Containers(partitions, runner, ballots, policies) };
};

/** A ring in which the last replica of every object is forgotten. */
class AllButOne extends Partitions {
  override object(account: string, container: string, object: string): ReplicaSet {
    const { name, partition } = super.object(account, container, object);
    const { configuration } = partition.members;
    const fewer = { ...configuration, old: configuration.old.slice(0, -1) };
    return { name, partition: new Partition(partition.place, fewer, (id) => this.replica(id)) };
  }
}

/** Registers that some device reports as left behind, however young. Asking reads no object. */
const leftBehind = async (rpc: RpcClient): Promise<string[]> => {
  const pages = await Promise.all(
    DEVICES.map((device) => new DeviceClient(rpc, device).unsettled(Date.now() + 60_000, undefined, 5000)),
  );
  return pages.flatMap(({ registers }) => registers.map(({ name }) => name.path));
};

test("a write whose proxy died between ACCEPT and ROW becomes listed without anybody reading it [B7]", async () => {
  const client = await login();
  await client.request("PUT", "/interrupted");
  const { account } = client;
  const { rpc, partitions, io, containers } = proxyParts();
  const { incarnation } = await containers.get(account, "interrupted");
  const object = partitions.object(account, "interrupted", "half-done");
  const place: ObjectPlace<ReplicaSet> = {
    object,
    container: containers.placeOf(account, "interrupted"),
    rowOf: () => {
      throw new Error("this proxy dies before it writes a row");
    },
    dueRowOf: () => undefined,
  };
  const metadata = {
    etag: "900150983cd24fb0d6963f7d28e17f72",
    contentType: "text/plain",
    headers: {},
    deleteAt: undefined,
  };
  const given: ObjectWrite = {
    kind: "plain",
    record: {
      isTombstone: false,
      bodyLength: 3,
      metadata: encodeObjectMetadata(metadata),
      body: "given",
      bodyVersion: undefined,
    },
  };
  const first = writeObject(place, incarnation, given, false).next().value;
  if (!("kind" in first) || first.kind !== "write") throw new Error("a write begins with the object's register");
  const body = { kind: "bytes", bytes: Buffer.from("abc") } as const;
  expect(await io.write(first.set, first.mode, body, first.incarnation)).toMatchObject({ kind: "established" });
  expect((await client.request("GET", "/interrupted")).text).toBe("");
  await expect
    .poll(async () => (await client.request("GET", "/interrupted")).text, {
      timeout: SETTLED_WITHIN_MS,
      interval: 500,
    })
    .toBe("half-done\n");
  expect((await client.request("GET", "/interrupted/half-done")).text).toBe("abc");
  rpc[Symbol.dispose]();
});

test("after SIGKILL of the proxy under load every write is settled by itself, and listing and objects agree [B7]", async () => {
  const client = await login();
  await client.request("PUT", "/load");
  const acknowledged = new Set<string>();
  const attempted: string[] = [];
  let isKilled = false;
  const writers = Array.from({ length: 24 }, async (_, writer) => {
    for (let index = 0; !isKilled; index++) {
      const name = `w${writer}-${index}`;
      attempted.push(name);
      const answer = await client.request("PUT", `/load/${name}`, { body: name }).catch(() => undefined);
      if (answer?.status === 201) acknowledged.add(name);
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const { pid } = installation.ready().processes.find(({ role }) => role.split(",").includes("proxy"))!;
  process.kill(pid, "SIGKILL");
  isKilled = true;
  await Promise.all(writers);
  expect(acknowledged.size).toBeGreaterThan(20);
  const { rpc } = proxyParts();
  await expect.poll(() => leftBehind(rpc), { timeout: SETTLED_WITHIN_MS, interval: 500 }).toEqual([]);
  rpc[Symbol.dispose]();
  await expect
    .poll(
      () =>
        client.request("HEAD", "/load").then(
          ({ status }) => status,
          () => 0,
        ),
      { timeout: SETTLED_WITHIN_MS },
    )
    .toBe(204);
  const listed = new Set((await client.request("GET", "/load")).text.split("\n").filter(Boolean));
  for (const name of acknowledged) expect(listed.has(name), name).toBe(true);
  for (const name of attempted) {
    if (acknowledged.has(name) && name.length % 3 !== 0) continue;
    expect((await client.request("GET", `/load/${name}`)).status, name).toBe(listed.has(name) ? 200 : 404);
  }
});

test("a replica that missed an upload, small or large, is given the body when the metadata changes [A4]", async () => {
  const client = await login();
  await client.request("PUT", "/missed");
  const { account } = client;
  const { rpc, runner, io, containers, rings } = proxyParts();
  const container = await containers.get(account, "missed");
  const some = new AllButOne(rings, () => rpc);
  const objects = new Objects(some, io, runner, containers, systemClock);
  for (const [name, length] of [
    ["small", 1000],
    ["large", 3_000_000],
  ] as const) {
    const bytes = randomBytes(length);
    const source = (async function* () {
      // Who receives it gives its memory back.
      yield Buffer.from(bytes);
    })();
    const uploaded = await receiveBody(some.object(account, "missed", name), source);
    const metadata = { etag: uploaded.md5, contentType: "text/plain", headers: {}, deleteAt: undefined };
    const { version } = await objects.put(container, name, uploaded, metadata, undefined);
    const set = new Partitions(rings, () => rpc).object(account, "missed", name);
    const lacking = set.partition.members.replicas.at(-1)!.client;
    const heldThere = () =>
      lacking.readBody(set.name, version, 0, 1000, 5000).then(
        (part) => part,
        () => undefined,
      );
    expect(await heldThere()).toBeUndefined();
    expect(
      (await client.request("POST", `/missed/${name}`, { headers: { "X-Object-Meta-Color": "red" } })).status,
    ).toBe(202);
    await expect.poll(heldThere, { timeout: 10_000 }).toEqual(bytes.subarray(0, 1000));
    expect((await client.request("GET", `/missed/${name}`)).bytes.equals(bytes)).toBe(true);
  }
  rpc[Symbol.dispose]();
});

test("an object goes at its time from reads, listings and figures, also when everything was killed before", async () => {
  let client = await login();
  await client.request("PUT", "/expiry");
  const put = (name: string, headers: Record<string, string>) =>
    client.request("PUT", `/expiry/${name}`, { headers, body: "0123456789" });
  await put("kept", {});
  await put("goes", { "X-Delete-After": "4" });
  await put("changed", { "X-Delete-After": "4" });
  await put("freed", { "X-Delete-After": "4" });
  expect((await client.request("POST", "/expiry/changed", { headers: { "X-Delete-After": "600" } })).status).toBe(202);
  expect((await client.request("POST", "/expiry/freed")).status).toBe(202);
  expect((await client.request("HEAD", "/expiry")).headers.get("x-container-object-count")).toBe("4");
  await installation.crash();
  client = await login();
  await expect
    .poll(async () => (await client.request("GET", "/expiry")).text, { timeout: 20_000, interval: 300 })
    .toBe("changed\nfreed\nkept\n");
  const head = await client.request("HEAD", "/expiry");
  expect(head.headers.get("x-container-object-count")).toBe("3");
  expect(head.headers.get("x-container-bytes-used")).toBe("30");
  expect((await client.request("GET", "/expiry/goes")).status).toBe(404);
  for (const name of ["changed", "freed", "kept"])
    expect((await client.request("GET", `/expiry/${name}`)).status, name).toBe(200);
});
