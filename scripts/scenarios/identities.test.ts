import { cpSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CHECKOUT } from "../up-options.ts";
import type { ObjectClient } from "./object-client.ts";
import { runCommand } from "./run-command.ts";
import { TestCluster } from "./test-cluster.ts";

const COUNT = 20;
const SOON = { timeout: 20_000 };

let cluster: TestCluster;
let client: ObjectClient;

beforeAll(async () => {
  cluster = await TestCluster.ofThreeAndDoor();
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

const putAll = async (what: string): Promise<void> => {
  for (let index = 0; index < COUNT; index++)
    expect((await client.request("PUT", `/kept/${index}`, { body: `${what} ${index}` })).status).toBe(201);
};

const expectAll = async (what: string): Promise<void> => {
  for (let index = 0; index < COUNT; index++)
    expect((await client.request("GET", `/kept/${index}`)).text).toBe(`${what} ${index}`);
};

const deviceOf = (node: string): string => join(cluster.dataOf(node), "devices", "d1");

it("a second node of one name is refused with words while the first serves, with its own folder and with a copy of the first's", async () => {
  client = await cluster.open("kept");
  await putAll("first");
  const twin = join(cluster.folder, "twin");
  mkdirSync(twin);
  cpSync(join(cluster.dataOf("s1"), "rings"), join(twin, "rings"), { recursive: true });
  const words = [...cluster.serveWords("s1").slice(0, -1), twin, "--key-file", cluster.keyFile];
  for (const copied of [false, true]) {
    if (copied) cpSync(join(cluster.dataOf("s1"), "devices"), join(twin, "devices"), { recursive: true });
    const refused = await runCommand(join(CHECKOUT, "scripts/ringstead"), words);
    expect([refused.code, refused.lastLine]).toEqual([1, expect.stringMatching(/port \d+ .* is in use/)]);
  }
  await putAll("second");
  await expectAll("second");
});

it("a device folder that was copied from another node is refused, naming whose it is, and nothing is lost when the right one is back", async () => {
  expect((await cluster.down("s3")).code).toBe(0);
  const own = `${deviceOf("s3")}.own`;
  renameSync(deviceOf("s3"), own);
  cpSync(deviceOf("s2"), deviceOf("s3"), { recursive: true });
  await expect(cluster.start("s3")).rejects.toThrow(/is not this device's folder: its node is "s2", not "s3"/);
  await putAll("third");
  await expectAll("third");
  rmSync(deviceOf("s3"), { recursive: true });
  renameSync(own, deviceOf("s3"));
  await cluster.start("s3");
  cluster.signal("s2", "SIGKILL");
  await expect.poll(() => client.request("GET", "/kept/0").then(({ status }) => status), SOON).toBe(200);
  await expectAll("third");
});
