import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CHECKOUT } from "../up-options.ts";
import type { ObjectClient } from "./object-client.ts";
import { type CommandRun, runCommand } from "./run-command.ts";
import { TestCluster } from "./test-cluster.ts";

let cluster: TestCluster;
let client: ObjectClient;

beforeAll(async () => {
  cluster = await TestCluster.make({
    s1: "storage-node",
    s2: "storage-node",
    s3: "storage-node",
    door: "proxy",
    keystone: "identity",
  });
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

it("a node of several is refused without the cluster key, without rings, and under a name that cluster.toml lacks", async () => {
  const ringstead = (words: string[]): Promise<CommandRun> => runCommand(join(CHECKOUT, "scripts/ringstead"), words);
  const keyless = await ringstead(cluster.serveWords("s1"));
  expect(keyless.code).toBe(1);
  expect(keyless.lastLine).toContain("node s1 is one of several and has no cluster key: give --key-file F");
  const ringless = await ringstead([...cluster.serveWords("s1"), "--key-file", cluster.keyFile]);
  expect(ringless.code).toBe(1);
  expect(ringless.lastLine).toContain("an installation of several nodes has the same rings on each");
  const foreign = await ringstead(cluster.serveWords("s9"));
  expect(foreign.code).toBe(2);
  expect(foreign.lastLine).toContain("has no table [node.s9]: its nodes are s1, s2, s3, door, keystone");
});

it("storage nodes, a proxy and an identity of their own make one object store", async () => {
  await cluster.makeRings();
  client = await cluster.open("kept");
  expect(cluster.ready("s1").endpoints).toEqual({});
  expect(Object.keys(cluster.ready("door").endpoints)).toEqual(["object"]);
  expect(cluster.ready("door").unavailable.find(({ service }) => service === "identity")).toMatchObject({
    reason: "node door has the roles proxy",
    remedy: "ask a node with the role identity",
  });
  for (let index = 0; index < 20; index++)
    expect((await client.request("PUT", `/kept/${index}`, { body: `object ${index}` })).status).toBe(201);
  const large = randomBytes(3_000_000);
  expect((await client.request("PUT", "/kept/large", { body: large })).status).toBe(201);
  expect((await client.request("GET", "/kept/large")).bytes.equals(large)).toBe(true);
});

it("one storage node is killed, and reads and writes go on", async () => {
  cluster.signal("s2", "SIGKILL");
  for (let index = 0; index < 20; index++) {
    const read = await client.request("GET", `/kept/${index}`);
    expect([read.status, read.text]).toEqual([200, `object ${index}`]);
    expect((await client.request("PUT", `/kept/${index}`, { body: `changed ${index}` })).status).toBe(201);
  }
  expect((await client.request("GET", "/kept")).text.trimEnd().split("\n")).toHaveLength(21);
});

it("identity is killed too, and requests with a valid token go on, in a new proxy as well", async () => {
  cluster.signal("keystone", "SIGKILL");
  expect((await client.request("GET", "/kept/3")).text).toBe("changed 3");
  expect((await cluster.down("door")).code).toBe(0);
  await cluster.start("door");
  expect((await client.request("GET", "/kept/3")).text).toBe("changed 3");
});

it("the killed node comes back, and then another may go", async () => {
  await cluster.start("s2");
  expect((await client.request("PUT", "/kept/after", { body: "after" })).status).toBe(201);
  cluster.signal("s3", "SIGKILL");
  // A proxy probes a suspect a few times a second.
  const soon = { timeout: 20_000 };
  await expect.poll(async () => (await client.request("GET", "/kept/after")).text, soon).toBe("after");
  const put = (): Promise<number> =>
    client.request("PUT", "/kept/later", { body: "later" }).then(({ status }) => status);
  await expect.poll(put, soon).toBe(201);
  expect((await client.request("GET", "/kept/later")).text).toBe("later");
  // Written while s2 was down, so that s1 alone has it among the two that are left.
  expect((await client.request("GET", "/kept/7")).text).toBe("changed 7");
});
