import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { seededRandom } from "../../common/random.ts";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";
import { ObjectClient } from "../../scripts/scenarios/object-client.ts";

const SHARD_NAMES = 400;
const WRITERS = 8;
const POLL = { timeout: 90_000, interval: 300 };

/** What a client knows of a name: what the last answer said, or that no answer came. */
type Known = "there" | "absent" | "unknown";

let installation: TestInstallation;
let client: ObjectClient;
let isKilling = false;
const known = new Map<string, Known>();
/** Answers that nobody should get while nothing is killed. */
const failures: string[] = [];

const limitNames = (count: number): void =>
  writeFileSync(join(installation.folder, "cluster.toml"), `[container]\nshard_names = ${count}\n`);

beforeAll(async () => {
  installation = new TestInstallation();
  limitNames(SHARD_NAMES);
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  expect((await client.request("PUT", "/c")).status).toBe(201);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

/** A request's status; undefined where the connection broke. */
const ask = async (method: string, name: string): Promise<number | undefined> => {
  try {
    return (await client.request(method, `/c/${encodeURIComponent(name)}`, method === "PUT" ? { body: "" } : {}))
      .status;
  } catch {
    return undefined;
  }
};

const change = async (method: "PUT" | "DELETE", name: string): Promise<void> => {
  const before = known.get(name) ?? "absent";
  known.set(name, "unknown");
  const status = await ask(method, name);
  if (method === "PUT" && status === 201) known.set(name, "there");
  else if (method === "DELETE" && (status === 204 || (status === 404 && before !== "there"))) known.set(name, "absent");
  else if (!isKilling) failures.push(`${method} ${name}, ${before} before: ${status}`);
};

/** Writers that put, and now and then delete what they have put, until the returned function is called. */
const beginWriting = (first: number, deleteShare: number): (() => Promise<void>) => {
  let isOver = false;
  const write = async (writer: number): Promise<void> => {
    const random = seededRandom(BigInt(first + writer));
    const own: string[] = [];
    for (let turn = 0; !isOver; turn++) {
      if (own.length > 0 && random.unit() < deleteShare) {
        const [name] = own.splice(random.below(own.length), 1);
        await change("DELETE", name ?? "");
        continue;
      }
      // Names of all shards at once, some with characters that compare otherwise in UTF-16.
      const name = `${random.below(1000).toString(36)}${["", "\u{1f40c}", "\uff5e"][turn % 3]}-${first}-${writer}-${turn}`;
      own.push(name);
      await change("PUT", name);
    }
  };
  const writers = Array.from({ length: WRITERS }, (_, writer) => write(writer));
  return async () => {
    isOver = true;
    await Promise.all(writers);
  };
};

const listAll = async (pageNames: number, isReverse = false): Promise<string[]> => {
  const names: string[] = [];
  for (let marker = ""; ; marker = names.at(-1) ?? "") {
    const query = `limit=${pageNames}&marker=${encodeURIComponent(marker)}${isReverse ? "&reverse=1" : ""}`;
    const answer = await client.request("GET", `/c?${query}`);
    expect([200, 204], answer.text).toContain(answer.status);
    const page = answer.text === "" ? [] : answer.text.trimEnd().split("\n");
    names.push(...page);
    if (page.length < pageNames) return names;
  }
};

const bytesOrder = (left: string, right: string): number => Buffer.compare(Buffer.from(left), Buffer.from(right));

/** What is listed is what was acknowledged; where no answer came both may be, and another the next time. */
const expectListed = async (): Promise<number> => {
  const isCertain = (name: string): boolean => known.get(name) !== "unknown";
  const names = await listAll(333);
  expect(names).toEqual(names.toSorted(bytesOrder));
  const listed = new Set(names);
  expect(listed.size).toBe(names.length);
  expect([...known].filter(([name, state]) => state === "there" && !listed.has(name))).toEqual([]);
  expect(names.filter((name) => (known.get(name) ?? "absent") === "absent")).toEqual([]);
  expect((await listAll(500, true)).toReversed().filter(isCertain)).toEqual(names.filter(isCertain));
  const certain = names.filter(isCertain).length;
  expect(await count()).toBeGreaterThanOrEqual(certain);
  expect(await count()).toBeLessThanOrEqual(certain + known.size - [...known.keys()].filter(isCertain).length);
  return names.length;
};

/** How many names the container counts now. */
const count = async (): Promise<number> =>
  Number((await client.request("HEAD", "/c")).headers.get("x-container-object-count"));

/** What the container's record says of its shards, as `ringstead explain` shows it. */
const shards = async (container = "c"): Promise<{ readonly ranges: number; readonly isChanging: boolean }> => {
  const { output } = await installation.command("explain", `/${client.account}/${container}`, "--json");
  const { shards: told } = JSON.parse(output) as { shards?: { ranges: readonly unknown[]; change?: unknown } };
  return { ranges: told?.ranges.length ?? 1, isChanging: told?.change !== undefined };
};

it("a listing is split again and again while it is written and listed, and nobody gets an error", async () => {
  const end = beginWriting(1000, 0.15);
  await expect
    .poll(async () => {
      const before = [...known].filter(([, state]) => state === "there").map(([name]) => name);
      const listed = new Set(await listAll(1000));
      // Deleted meanwhile, or there.
      expect(before.filter((name) => known.get(name) === "there" && !listed.has(name))).toEqual([]);
      return (await shards()).ranges;
    }, POLL)
    .toBeGreaterThanOrEqual(4);
  await end();
  expect(failures).toEqual([]);
  expect(await expectListed()).toBeGreaterThan(3 * SHARD_NAMES);
});

it("everything is killed in the middle of splits, and what was acknowledged is listed", async () => {
  let isCut = 0;
  for (let round = 0; round < 4; round++) {
    const end = beginWriting(10_000 * (round + 1), 0.1);
    isKilling = true;
    // Under way if it can be met: a split of some hundred names takes a moment.
    const untilMs = performance.now() + 20_000;
    let isChanging = false;
    while (!isChanging && performance.now() < untilMs) ({ isChanging } = await shards());
    isCut += Number(isChanging);
    await installation.killAll();
    await end();
    await installation.up();
    isKilling = false;
    await expectListed();
  }
  expect(isCut).toBeGreaterThan(0);
  await expect.poll(async () => (await shards()).isChanging, POLL).toBe(false);
  expect(failures).toEqual([]);
});

it("what is deleted is merged, and figures follow into the account", async () => {
  // What was left open by those that were killed is finished by now, or in a moment.
  for (const [name, state] of known) if (state === "unknown") await change("DELETE", name);
  const names = await listAll(1000);
  const share = Math.ceil(names.length / (SHARD_NAMES / 20));
  const doomed = names.filter((_, index) => index % share !== 0);
  const queues = Array.from({ length: WRITERS }, (_, at) => doomed.filter((_, index) => index % WRITERS === at));
  await Promise.all(
    queues.map(async (queue) => {
      for (const name of queue) await change("DELETE", name);
    }),
  );
  expect(failures).toEqual([]);
  const left = await expectListed();
  expect(left).toBe(names.length - doomed.length);
  await expect.poll(async () => (await shards()).ranges, POLL).toBe(1);
  expect(await expectListed()).toBe(left);
  const account = async (): Promise<number> =>
    Number((await client.request("HEAD", "")).headers.get("x-account-object-count"));
  await expect.poll(account, POLL).toBe(left);
});

it("a container with shards is deleted once it is empty, and its next life is empty", async () => {
  expect((await client.request("DELETE", "/c")).status).toBe(409);
  const names = await listAll(1000);
  for (const name of names) await change("DELETE", name);
  expect(await count()).toBe(0);
  expect((await client.request("DELETE", "/c")).status).toBe(204);
  expect((await client.request("GET", "/c")).status).toBe(404);
  expect(await ask("PUT", "late")).toBe(404);
  expect((await client.request("PUT", "/c")).status).toBe(201);
  expect(await listAll(10)).toEqual([]);
  expect((await shards()).ranges).toBe(1);
});

it("a listing that became too large before a start, and that nobody asks for since, is found and split", async () => {
  expect((await client.request("PUT", "/still")).status).toBe(201);
  const names = Array.from({ length: SHARD_NAMES / 2 }, (_, at) => `n${String(at).padStart(4, "0")}`);
  for (const name of names) expect((await client.request("PUT", `/still/${name}`, { body: "" })).status).toBe(201);
  expect((await shards("still")).ranges).toBe(1);
  await installation.command("down");
  limitNames(SHARD_NAMES / 4);
  await installation.up();
  // What is asked for here is the container's record alone, at devices.
  await expect.poll(async () => (await shards("still")).ranges, POLL).toBeGreaterThan(1);
  await expect.poll(async () => (await shards("still")).isChanging, POLL).toBe(false);
  expect((await client.request("GET", "/still?limit=1000")).text.trimEnd().split("\n")).toEqual(names);
});
