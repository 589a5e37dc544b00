import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { sleep } from "../../common/worker.ts";
import { loadRing } from "../../ring/ring-file.ts";
import type { Ring } from "../../ring/ring.ts";
import type { SupervisorState } from "../supervisor.ts";
import { CHECKOUT } from "../up-options.ts";
import type { ObjectClient } from "./object-client.ts";
import { type CommandRun, runCommand } from "./run-command.ts";
import { TestCluster } from "./test-cluster.ts";

/** Written before anything moves: what has to be copied is theirs, nearly all of it. */
const KEPT_COUNT = 150;
const KEPT_BYTES = 80_000;
const LARGE_BYTES = 3_000_000;
const CLIENTS = 6;
const MOVED_LIMIT_MS = 240_000;

const STORAGE_NODES = ["s1", "s2", "s3", "s4", "s5"];

let cluster: TestCluster;
let client: ObjectClient;
const bodies = new Map<string, Buffer>();

beforeAll(async () => {
  const roles = Object.fromEntries(STORAGE_NODES.map((node) => [node, "storage-node"]));
  cluster = await TestCluster.make({ ...roles, door: "proxy,identity" });
  await cluster.makeRings(STORAGE_NODES.slice(0, 4));
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

const put = async (path: string, body: Buffer): Promise<void> => {
  expect([path, (await client.request("PUT", path, { body: Uint8Array.from(body) })).status]).toEqual([path, 201]);
  bodies.set(path, body);
};

/** Clients that write and read names of their own, one request at a time, and look at what they listed, until they are told to stop. */
class Clients {
  readonly failures: string[] = [];
  answered = 0;
  worstMs = 0;
  #isOver = false;
  readonly #running = Array.from({ length: CLIENTS }, (_, number) => this.#run(number));

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #run(number: number): Promise<void> {
    for (let turn = 0; !this.#isOver; turn++) {
      const path = `/live/${number}-${turn % 12}`;
      const body = Buffer.from(`${path} ${turn} `.repeat(20));
      await this.#ask(
        () => client.request("PUT", path, { body: Uint8Array.from(body) }),
        path,
        (answer) => {
          if (answer.status === 201) bodies.set(path, body);
          return answer.status === 201;
        },
      );
      await this.#ask(
        () => client.request("GET", path),
        path,
        (answer) => answer.bytes.equals(bodies.get(path)!),
      );
      if (turn % 5 === 0)
        await this.#ask(
          () => client.request("GET", `/live?prefix=${number}-`),
          "list",
          ({ text }) => text.split("\n").includes(path.slice("/live/".length)),
        );
      await sleep(20);
    }
  }

  async #ask(
    ask: () => ReturnType<ObjectClient["request"]>,
    what: string,
    isGood: (answer: Awaited<ReturnType<ObjectClient["request"]>>) => boolean,
  ): Promise<void> {
    try {
      const answer = await ask();
      this.worstMs = Math.max(this.worstMs, answer.ms);
      if (isGood(answer)) this.answered += 1;
      else this.failures.push(`${what}: ${answer.status} ${answer.text.slice(0, 80)}`);
    } catch (error) {
      this.failures.push(`${what}: ${String(error)}`);
    }
  }
}

const figure = async (node: string, name: string): Promise<number> => {
  const { config } = JSON.parse(readFileSync(join(cluster.dataOf(node), "supervisor.json"), "utf8")) as SupervisorState;
  const page = await (await fetch(`http://${config.metricsBind}/metrics`)).text();
  const lines = page.split("\n").filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
};

const pulledBytes = async (): Promise<number> => {
  const all = await Promise.all(STORAGE_NODES.map((node) => figure(node, "ringstead_device_repaired_bytes")));
  return all.reduce((sum, bytes) => sum + bytes, 0);
};

const ringStatus = (): Promise<CommandRun> =>
  runCommand(join(CHECKOUT, "scripts/ringstead"), ["ring", "status", "--data", cluster.dataOf("door")]);

const leftToMove = (): Promise<number> => figure("door", "ringstead_ring_partitions_to_move");

/** Resolves once everything is where the rings of that version say. */
const untilMoved = async (version: number): Promise<void> => {
  const isDone = async (): Promise<boolean> =>
    (await figure("door", "ringstead_ring_version")) === 3 * version && (await leftToMove()) === 0;
  await expect.poll(isDone, { timeout: MOVED_LIMIT_MS, interval: 500 }).toBe(true);
};

const membersOf = (ring: Ring, partition: number): string[] => ring.primaries(partition).map(({ node }) => node);

/** What has to be copied of the objects that were written before. */
const leastBytes = (before: Ring, after: Ring): number => {
  let sum = 0;
  for (const [path, body] of bodies) {
    const [, container = "", object = ""] = path.split("/");
    const { partition } = before.placementOf(client.account, container, object);
    const had = membersOf(before, partition);
    sum += body.length * membersOf(after, partition).filter((node) => !had.includes(node)).length;
  }
  return sum;
};

const expectAllReadable = async (): Promise<void> => {
  for (const [path, body] of bodies) {
    const answer = await client.request("GET", path);
    expect([path, answer.status, answer.bytes.equals(body)]).toEqual([path, 200, true]);
  }
};

it("data follows new rings under clients, with a storage node killed meanwhile: no request fails, and little more is copied than has to be", async () => {
  client = await cluster.open("kept");
  await client.request("PUT", "/live");
  for (let index = 0; index < KEPT_COUNT; index++) await put(`/kept/${index}`, randomBytes(KEPT_BYTES));
  await put("/kept/large", randomBytes(LARGE_BYTES));
  const before = loadRing(cluster.ringFile("object-0"));
  const pulledBefore = await pulledBytes();
  const clients = new Clients();
  await cluster.changeRings(["add", "--node", "s5", "--device", "d1", "--weight", "100"], ["weight", "0", "50"]);
  const after = loadRing(cluster.ringFile("object-0"));
  const least = leastBytes(before, after);
  expect(least).toBeGreaterThan(1_000_000);
  const atFirst = await leftToMove();
  await expect.poll(leftToMove, { timeout: MOVED_LIMIT_MS }).toBeGreaterThan(atFirst);
  const all = await leftToMove();
  await expect.poll(leftToMove, { timeout: MOVED_LIMIT_MS }).toBeLessThan(0.7 * all);
  const pulledByKilled = await figure("s3", "ringstead_device_repaired_bytes");
  cluster.signal("s3", "SIGKILL");
  await sleep(2000);
  await cluster.start("s3");
  await untilMoved(after.version);
  await sleep(1000);
  await clients.stop();
  expect(clients.failures).toEqual([]);
  expect(clients.answered).toBeGreaterThan(300);
  await expectAllReadable();
  const pulled = (await pulledBytes()) + pulledByKilled - pulledBefore;
  expect(pulled / least).toBeGreaterThan(0.9);
  expect(pulled / least).toBeLessThan(1.1);
  const { code, output } = await ringStatus();
  expect([code, output]).toEqual([0, expect.stringContaining("all in place")]);
  console.log({ answered: clients.answered, worstMs: clients.worstMs, least, pulled });
});

it("a device that is emptied gives back all that it held, and what it held stays readable without it", async () => {
  const clients = new Clients();
  await cluster.changeRings(["weight", "3", "0"]);
  await untilMoved(loadRing(cluster.ringFile("object-0")).version);
  await expect
    .poll(() => figure("door", "ringstead_ring_entries_to_release"), { timeout: MOVED_LIMIT_MS, interval: 500 })
    .toBe(0);
  await clients.stop();
  expect(clients.failures).toEqual([]);
  cluster.signal("s4", "SIGKILL");
  await expectAllReadable();
  await put("/kept/afterwards", Buffer.from("afterwards"));
});

it("a ring of a lower version, or of another installation, is refused in words, and the one before goes on counting", async () => {
  const { version } = loadRing(cluster.ringFile("object-0"));
  cluster.handOutRing("object-0", (ring) => ({ ...ring, version: version - 1 }));
  const refused = (): Promise<number> => figure("door", "ringstead_ring_refused");
  await expect.poll(refused, { timeout: 20_000 }).toBe(1);
  expect((await ringStatus()).output).toContain(`refused, version ${version} counts: it has version ${version - 1}`);
  const doctor = await runCommand(join(CHECKOUT, "scripts/ringstead"), ["doctor", "--data", cluster.dataOf("door")]);
  expect([doctor.code, doctor.output]).toEqual([
    1,
    expect.stringContaining("ring object-0: the file that is there does not count"),
  ]);
  cluster.handOutRing("object-0", (ring) => ({ ...ring, version: version + 1, hashSeed: ring.hashSeed + 1n }));
  await expect.poll(async () => (await ringStatus()).output, { timeout: 20_000 }).toContain("of another installation");
  expect((await ringStatus()).code).toBe(1);
  cluster.handOutRing("object-0", (ring) => ring);
  await expect.poll(refused, { timeout: 20_000 }).toBe(0);
  await expectAllReadable();
});
