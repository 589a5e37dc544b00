import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { CHECKOUT } from "../up-options.ts";
import { KeepAliveClients } from "./keep-alive-clients.ts";
import { type CommandRun, runCommand } from "./run-command.ts";
import { TestCluster } from "./test-cluster.ts";

let cluster: TestCluster;

const BODY = randomBytes(4096);
const LARGE = randomBytes(2 * 1024 * 1024);

const onNode = (node: string, ...words: string[]): Promise<CommandRun> =>
  runCommand(join(CHECKOUT, "scripts/ringstead"), [...words, "--data", cluster.dataOf(node)]);

beforeAll(async () => {
  cluster = await TestCluster.ofThreeAndDoor();
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

it("every process of three storage nodes and their door is restarted in turn under 32 clients, and not one request fails", async () => {
  const client = await cluster.open("kept");
  expect((await client.request("PUT", "/kept/read", { body: BODY })).status).toBe(201);
  expect((await client.request("PUT", "/kept/large", { body: LARGE })).status).toBe(201);
  const headers = { "x-auth-token": client.token };
  const clients = new KeepAliveClients();
  const object = (name: string): string => `${client.url}/kept/${name}`;
  for (let index = 0; index < 16; index++) clients.add(() => ({ method: "GET", url: object("read"), headers }));
  for (let index = 0; index < 2; index++) clients.add(() => ({ method: "GET", url: object("large"), headers }));
  for (let index = 0; index < 14; index++)
    clients.add((turn) => ({ method: "PUT", url: object(`${index}-${turn % 5}`), headers, body: BODY }));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const restarted: string[] = [];
  for (const node of ["s1", "s2", "s3", "door"]) {
    const { code, output } = await onNode(node, "restart");
    expect([node, code, output]).toEqual([node, 0, expect.stringMatching(/restarted\n$/)]);
    restarted.push(...output.split("\n").flatMap((line) => line.match(/^(\S+) is new/)?.[1] ?? []));
  }
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await clients[Symbol.asyncDispose]();
  expect(restarted).toEqual(["storage-node", "storage-node", "storage-node", "identity", "proxy"]);
  expect(clients.failures).toEqual([]);
  expect(clients.answered).toBeGreaterThan(500);
});

it("a node whose clock is 90 s ahead takes no part: status says by how much on both sides, and clients notice nothing", async () => {
  const client = await cluster.login();
  expect((await cluster.down("s3")).code).toBe(0);
  const shift = "const now = Date.now; Date.now = () => now() + 90_000;";
  process.env["NODE_OPTIONS"] = `--import data:text/javascript,${encodeURIComponent(shift)}`;
  try {
    await cluster.start("s3");
  } finally {
    delete process.env["NODE_OPTIONS"];
  }
  for (let index = 0; index < 20; index++)
    expect((await client.request("PUT", `/kept/clock-${index}`, { body: BODY })).status).toBe(201);
  const problems = async (node: string): Promise<string> => {
    const { problems: found } = JSON.parse((await onNode(node, "status", "--json")).output) as { problems: string[] };
    return found.join("\n");
  };
  const soon = { timeout: 20_000 };
  const door =
    /proxy cannot use its peer at 127\.0\.0\.1:\d+ .*its clock is 90 s ahead of this node's, more than 30 s; set the clock/;
  await expect.poll(() => problems("door"), soon).toMatch(door);
  await expect
    .poll(() => problems("s3"), soon)
    .toMatch(/storage-node refused a peer .*its clock is 90 s behind this node's/);
  const log = readFileSync(join(cluster.dataOf("door"), "logs", "proxy.log"), "utf8");
  expect(log).toMatch(/"message":"an RPC peer was refused".*"code":"clock-off".*90 s ahead/);
  expect((await cluster.down("s3")).code).toBe(0);
  await cluster.start("s3");
  await expect.poll(() => problems("door"), soon).not.toContain("clock");
});
