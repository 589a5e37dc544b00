import { randomBytes } from "node:crypto";
import { appendFileSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadRing } from "../../ring/ring-file.ts";
import type { ObjectAnswer, ObjectClient } from "./object-client.ts";
import { TestCluster } from "./test-cluster.ts";

const STORAGE_NODES = ["s1", "s2", "s3", "s4", "s5"];
const LIMIT_MS = 120_000;
const soon = { timeout: LIMIT_MS, interval: 500 };

let cluster: TestCluster;
let client: ObjectClient;
/** Two nodes that are killed, and names of objects by how many of their replicas are there. */
let killed: readonly string[];
let onBoth: readonly string[];
let onNeither: string;
const large = randomBytes(3_000_000);

beforeAll(async () => {
  const roles = Object.fromEntries(STORAGE_NODES.map((node) => [node, "storage-node"]));
  cluster = await TestCluster.make({ ...roles, door: "proxy,identity" });
  appendFileSync(cluster.configFile, '\n[storage_policy.spread]\nindex = 1\nconsistency = "available"\n');
  await cluster.makeRings();
  client = await cluster.open("firm");
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

const nodesOf = (space: "container" | "object-0", ...names: readonly [string, string?]): readonly string[] => {
  const ring = loadRing(cluster.ringFile(space));
  return ring.primaries(ring.placementOf(client.account, ...names).partition).map(({ node }) => node);
};

/** So many names of a container whose replicas are on that many of some nodes. */
const namesOn = (container: string, nodes: readonly string[], wanted: number, count: number): readonly string[] => {
  const found: string[] = [];
  for (let number = 0; found.length < count; number++) {
    const name = `o${number}`;
    const there = nodesOf("object-0", container, name).filter((node) => nodes.includes(node));
    if (there.length === wanted) found.push(name);
  }
  return found;
};

const put = (path: string, body: string | Uint8Array<ArrayBuffer>, headers = {}): Promise<ObjectAnswer> =>
  client.request("PUT", path, { body, headers });

/** Without what was answered 503, which may take effect or not. */
const listed = async (container: string): Promise<readonly string[]> =>
  (await client.request("GET", `/${container}`)).text.split("\n").filter((name) => !/^$|x$/.test(name));

it("a policy is chosen when a container is made, shown, and kept", async () => {
  expect((await put("/spread", "", { "x-storage-policy": "Spread" })).status).toBe(201);
  expect((await put("/spread", "", { "x-storage-policy": "spread" })).status).toBe(202);
  expect((await client.request("HEAD", "/spread")).headers.get("x-storage-policy")).toBe("spread");
  expect((await client.request("HEAD", "/firm")).headers.get("x-storage-policy")).toBe("Policy-0");
  expect((await put("/other", "", { "x-storage-policy": "gold" })).status).toBe(400);
  const changed = { "x-storage-policy": "Policy-0", "x-container-meta-tone": "loud" };
  expect((await put("/spread", "", changed)).status).toBe(409);
  expect((await put("/firm", "", { "x-storage-policy": "spread" })).status).toBe(409);
  const head = await client.request("HEAD", "/spread");
  expect([head.headers.get("x-storage-policy"), head.headers.get("x-container-meta-tone")]).toEqual(["spread", null]);
  const info = (await (await fetch(new URL("/info", client.url))).json()) as {
    swift: { policies: unknown };
    ringstead: { policies: Record<string, { consistency: string }> };
  };
  expect(info.swift.policies).toEqual([
    { name: "Policy-0", aliases: "Policy-0", default: true },
    { name: "spread", aliases: "spread" },
  ]);
  expect(info.ringstead.policies["spread"]?.consistency).toBe("available");
});

it("without two of three replicas a write is refused under strong, and kept under available", async () => {
  killed = nodesOf("container", "spread").slice(0, 2);
  onBoth = namesOn("spread", killed, 2, 6);
  onNeither = namesOn("spread", killed, 0, 1)[0] ?? "";
  const [firm = ""] = namesOn("firm", killed, 2, 1);
  expect((await put(`/spread/${onBoth[0]}`, "before")).status).toBe(201);
  expect((await put(`/spread/${onBoth[1]}`, "before")).status).toBe(201);
  for (const node of killed) cluster.signal(node, "SIGKILL");
  expect((await put(`/firm/${firm}`, "refused")).status).toBe(503);
  for (const name of [...onBoth.slice(0, 1), ...onBoth.slice(2, 5), onNeither]) {
    expect([name, (await put(`/spread/${name}`, `kept ${name}`)).status]).toEqual([name, 201]);
    expect((await client.request("GET", `/spread/${name}`)).text).toBe(`kept ${name}`);
  }
  expect((await put(`/spread/${onBoth[5]}`, Uint8Array.from(large))).status).toBe(201);
  expect((await client.request("GET", `/spread/${onBoth[5]}`)).bytes.equals(large)).toBe(true);
  expect((await client.request("DELETE", `/spread/${onBoth[1]}`)).status).toBe(204);
  expect((await client.request("GET", `/spread/${onBoth[1]}`)).status).toBe(404);
  expect((await client.request("DELETE", `/spread/${onBoth[1]}`)).status).toBe(404);
  expect(await listed("spread")).toEqual([...onBoth.filter((name) => name !== onBoth[1]), onNeither].toSorted());
});

it("a condition, and metadata alone, are refused meanwhile", async () => {
  const created = await put(`/spread/${onBoth[2]}x`, "", { "if-none-match": "*" });
  expect(created.status).toBe(503);
  const headers = { "x-object-meta-tone": "low" };
  expect((await client.request("POST", `/spread/${onBoth[0]}`, { headers })).status).toBe(503);
  expect((await client.request("GET", `/spread/${onBoth[0]}`)).text).toBe(`kept ${onBoth[0]}`);
});

/** What devices of running nodes keep for others. */
const handOffsLeft = async (): Promise<number> => {
  let left = 0;
  for (const node of STORAGE_NODES) {
    const { code, output } = await cluster.command(node, "repair", "status", "--json");
    if (code !== 0) continue;
    const status = JSON.parse(output) as { devices: { progress?: { handOffsLeft: number } }[] };
    for (const { progress } of status.devices) left += progress?.handOffsLeft ?? 0;
  }
  return left;
};

it("what is kept survives the restart of who keeps it", async () => {
  const left = await handOffsLeft();
  expect(left).toBeGreaterThan(6);
  const path = `/${client.account}/spread/${onBoth[3]}`;
  const { output } = await cluster.command("door", "explain", path, "--json");
  expect((JSON.parse(output) as { keptBy: unknown[] }).keptBy).toHaveLength(1);
  for (const node of STORAGE_NODES.filter((one) => !killed.includes(one))) {
    cluster.signal(node, "SIGKILL");
    await cluster.start(node);
  }
  expect(await handOffsLeft()).toBe(left);
  await expect
    .poll(async () => (await client.request("GET", `/spread/${onBoth[3]}`)).text, soon)
    .toBe(`kept ${onBoth[3]}`);
});

it("when the replicas are back everything goes home, and all of them are equal", async () => {
  for (const node of killed) await cluster.start(node);
  await expect.poll(handOffsLeft, soon).toBe(0);
  for (const name of [...onBoth, onNeither]) {
    const path = `/${client.account}/spread/${name}`;
    const explained = async () => (await cluster.command("door", "explain", path, "--read", "--json")).output;
    const isWell = async (): Promise<boolean> => {
      const { isWell: areEqual, replicas } = JSON.parse(await explained()) as {
        isWell: boolean;
        replicas: { report?: { state: string; body?: string } }[];
      };
      return areEqual && replicas.every(({ report }) => report?.state === "confirmed" && report.body !== "damaged");
    };
    await expect.poll(isWell, soon).toBe(true);
  }
  expect(await listed("spread")).toEqual([...onBoth.filter((name) => name !== onBoth[1]), onNeither].toSorted());
  expect((await client.request("GET", `/spread/${onBoth[5]}`)).bytes.equals(large)).toBe(true);
  expect((await client.request("GET", `/spread/${onBoth[1]}`)).status).toBe(404);
  const { headers } = await client.request("HEAD", "/spread");
  const all = (await client.request("GET", "/spread")).text.trimEnd().split("\n");
  expect(headers.get("x-container-object-count")).toBe(`${all.length}`);
  expect((await put(`/spread/${onBoth[2]}y`, "", { "if-none-match": "*" })).status).toBe(201);
});
