import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { TestInstallation } from "./installation.ts";
import { type ObjectAnswer, ObjectClient } from "./object-client.ts";
import { TestCluster } from "./test-cluster.ts";

/** What a request may take above the slowest one of a whole cluster, before it counts as held up by the outage. */
const HELD_UP_MS = 1000;
let slowestBeforeMs = 0;

let cluster: TestCluster;
let client: ObjectClient;

const LARGE = randomBytes(3_000_000);
/** Objects of one round: each is put, read, looked at, listed and deleted. */
const ROUND = 25;
/** Those that meet the silent node before it is a suspect, and those that try it again: far from each of a round's 150. */
const HANDFUL = 15;

/** One of every operation, many times over and checked; gives what each request took, in milliseconds. */
const work = async (prefix: string): Promise<readonly number[]> => {
  const taken: number[] = [];
  const ask = async (
    wanted: number,
    method: string,
    path: string,
    body?: Buffer<ArrayBuffer>,
  ): Promise<ObjectAnswer> => {
    const answer = await client.request(method, path, body === undefined ? {} : { body });
    expect([method, path, answer.status, answer.status >= 400 ? answer.text : ""]).toEqual([method, path, wanted, ""]);
    taken.push(answer.ms);
    return answer;
  };
  for (let index = 0; index < ROUND; index++) {
    const path = `/kept/${prefix}-${index}`;
    const body = index % 8 === 7 ? LARGE : Buffer.from(`${prefix} ${index}`);
    await ask(201, "PUT", path, body);
    expect((await ask(200, "GET", path)).bytes.equals(body)).toBe(true);
    await ask(200, "HEAD", path);
    await ask(202, "POST", path);
    const listed = await ask(200, "GET", `/kept?prefix=${prefix}-`);
    expect(listed.text).toBe(`${prefix}-${index}\n`);
    await ask(204, "DELETE", path);
  }
  return taken;
};

/** How many of them were held up. */
const heldUp = (taken: readonly number[]): number => taken.filter((ms) => ms > slowestBeforeMs + HELD_UP_MS).length;

const untilItWorks = (attempt: () => Promise<boolean>): Promise<void> =>
  expect.poll(attempt, { timeout: 30_000, interval: 50 }).toBe(true);

beforeAll(async () => {
  cluster = await TestCluster.ofThreeAndDoor();
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

it("with a storage node stopped every operation goes on, and it costs a handful of requests a wait, not each of them", async () => {
  client = await cluster.open("kept");
  slowestBeforeMs = Math.max(...(await work("before")));
  cluster.signal("s1", "SIGSTOP");
  expect(heldUp(await work("stopped"))).toBeLessThanOrEqual(HANDFUL);
  // Long after the first time-out nobody pays for it again.
  await new Promise((resolve) => setTimeout(resolve, 6000));
  expect(heldUp(await work("still-stopped"))).toBeLessThanOrEqual(HANDFUL);
});

it("requests that were under way when the node stopped end well too", async () => {
  cluster.signal("s1", "SIGCONT");
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const bodies = Array.from({ length: 8 }, (_, index) => ({
    path: `/kept/under-way-${index}`,
    body: randomBytes(8_000_000),
  }));
  const puts = bodies.map(({ path, body }) => client.request("PUT", path, { body }));
  await new Promise((resolve) => setTimeout(resolve, 50));
  cluster.signal("s2", "SIGSTOP");
  expect((await Promise.all(puts)).map(({ status }) => status)).toEqual(bodies.map(() => 201));
  for (const { path, body } of bodies) expect((await client.request("GET", path)).bytes.equals(body)).toBe(true);
});

it("a node that goes on after a stop is needed and used soon, when another one goes", async () => {
  cluster.signal("s2", "SIGCONT");
  await untilItWorks(async () => (await client.request("PUT", "/kept/again", { body: "again" })).status === 201);
  await work("all-back");
  cluster.signal("s3", "SIGKILL");
  await untilItWorks(async () => (await client.request("PUT", "/kept/later", { body: "later" })).status === 201);
  expect(heldUp(await work("killed"))).toBeLessThanOrEqual(HANDFUL);
});

it("the killed node serves again soon of its return, also as one of the two that a quorum needs", async () => {
  await cluster.start("s3");
  cluster.signal("s1", "SIGKILL");
  await untilItWorks(async () => {
    const put = await client.request("PUT", "/kept/returned", { body: "returned" });
    expect([201, 503]).toContain(put.status);
    const large = await client.request("PUT", "/kept/large-returned", { body: LARGE });
    expect([201, 503]).toContain(large.status);
    return put.status === 201 && large.status === 201;
  });
  expect((await client.request("GET", "/kept/large-returned")).bytes.equals(LARGE)).toBe(true);
  expect(heldUp(await work("returned"))).toBeLessThanOrEqual(HANDFUL);
});

it("the only storage node of one machine restarts, and requests succeed again soon and are never answered 500", async () => {
  await using installation = new TestInstallation(["--only", "object"]);
  const { swiftAuthV1, processes } = await installation.up();
  const own = await ObjectClient.login(swiftAuthV1);
  expect((await own.request("PUT", "/kept")).status).toBe(201);
  expect((await own.request("PUT", "/kept/large", { body: LARGE })).status).toBe(201);
  const seen = new Set<number>();
  let isOver = false;
  const clients = ["small", "large", "read", "list"].map(async (kind) => {
    while (!isOver) {
      const answer =
        kind === "read"
          ? await own.request("GET", "/kept/large").catch(() => undefined)
          : kind === "list"
            ? await own.request("GET", "/kept")
            : await own.request("PUT", `/kept/${kind}`, { body: kind === "large" ? LARGE : "small" });
      if (answer !== undefined) seen.add(answer.status);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
  await new Promise((resolve) => setTimeout(resolve, 300));
  process.kill(processes.find(({ role }) => role === "storage-node")!.pid, "SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, 500));
  await untilItWorks(async () => {
    const answers = await Promise.all([
      own.request("PUT", "/kept/after", { body: "after" }),
      own.request("PUT", "/kept/after-large", { body: LARGE }),
      own.request("GET", "/kept"),
    ]);
    for (const { status } of answers) seen.add(status);
    return answers.every(({ status }) => status === 200 || status === 201);
  });
  isOver = true;
  await Promise.all(clients);
  expect([...seen].filter((status) => status !== 200 && status !== 201 && status !== 503)).toEqual([]);
  expect((await own.request("GET", "/kept/large")).bytes.equals(LARGE)).toBe(true);
});
