import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { join } from "node:path";
import { sleep } from "../../common/worker.ts";
import {
  PREVIOUS_RELEASE,
  unpackPreviousRelease,
  upgradeCheckout,
  whyNoPreviousRelease,
} from "../upgrade/previous-release.ts";
import { KeepAliveClients } from "./keep-alive-clients.ts";
import type { ObjectClient } from "./object-client.ts";
import { TestCluster } from "./test-cluster.ts";

const SMALL = randomBytes(4096);
const LARGE = randomBytes(2 * 1024 * 1024);
/** Under which old and new ones work together, at the least. */
const BETWEEN_MS = 1_000;
const KEPT = 30;
const obstacle = whyNoPreviousRelease();
if (obstacle !== undefined) process.stdout.write(`rolling upgrades are not tested: ${obstacle}\n`);

let cluster: TestCluster;

const checkoutOf = (node: string): string => join(cluster.folder, `code-${node}`);

beforeAll(async () => {
  cluster = await TestCluster.ofThreeAndDoor();
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

/** So many clients as 32, which read what is there and write anew. */
const clientsOf = ({ url, token }: ObjectClient): KeepAliveClients => {
  const headers = { "x-auth-token": token };
  const clients = new KeepAliveClients();
  for (let index = 0; index < 12; index++)
    clients.add((turn) => ({ method: "GET", url: `${url}/kept/old-${(index + turn) % KEPT}`, headers }));
  for (let index = 0; index < 4; index++)
    clients.add(() => ({ method: "GET", url: `${url}/kept?format=json&prefix=old-`, headers }));
  for (let index = 0; index < 2; index++) clients.add(() => ({ method: "GET", url: `${url}/kept/large`, headers }));
  for (let index = 0; index < 14; index++)
    clients.add((turn) => ({ method: "PUT", url: `${url}/kept/${index}-${turn % 5}`, headers, body: SMALL }));
  return clients;
};

const contentOf = async (client: ObjectClient): Promise<void> => {
  for (let index = 0; index < KEPT; index++) {
    const answer = await client.request("GET", `/kept/old-${index}`);
    expect([index, answer.status, answer.text]).toEqual([index, 200, `written by the previous release ${index}`]);
  }
  expect((await client.request("GET", "/kept/large")).bytes.equals(LARGE)).toBe(true);
};

test.skipIf(obstacle !== undefined)(
  `three storage nodes and their door are upgraded from ${PREVIOUS_RELEASE} one after the other under 32 clients, and not one request fails`,
  async () => {
    for (const node of cluster.nodes) {
      await unpackPreviousRelease(checkoutOf(node));
      cluster.useCheckout(node, checkoutOf(node));
    }
    const client = await cluster.open("kept");
    for (let index = 0; index < KEPT; index++) {
      const body = `written by the previous release ${index}`;
      expect((await client.request("PUT", `/kept/old-${index}`, { body })).status).toBe(201);
    }
    expect((await client.request("PUT", "/kept/large", { body: LARGE })).status).toBe(201);
    const clients = clientsOf(client);
    const upgraded: string[] = [];
    await sleep(BETWEEN_MS);
    for (const node of cluster.nodes) {
      await upgradeCheckout(checkoutOf(node));
      const { code, output } = await cluster.command(node, "restart");
      expect([node, code, output]).toEqual([node, 0, expect.stringMatching(/restarted\n$/)]);
      upgraded.push(...output.split("\n").flatMap((line) => line.match(/^(\S+) is new/)?.[1] ?? []));
      await sleep(BETWEEN_MS);
    }
    await clients[Symbol.asyncDispose]();
    expect(upgraded).toEqual(["storage-node", "storage-node", "storage-node", "identity", "proxy"]);
    expect(clients.failures).toEqual([]);
    expect(clients.answered).toBeGreaterThan(500);
    await contentOf(client);
    // With supervisors of today too, and each of two nodes needed.
    for (const node of cluster.nodes) expect((await cluster.down(node)).code).toBe(0);
    await cluster.startAll();
    cluster.signal("s2", "SIGKILL");
    const again = await cluster.login();
    await expect
      .poll(async () => (await again.request("GET", "/kept/large")).bytes.equals(LARGE), { timeout: 60_000 })
      .toBe(true);
    await contentOf(again);
  },
);
