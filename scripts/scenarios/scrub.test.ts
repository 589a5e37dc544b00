import { randomBytes } from "node:crypto";
import { closeSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { DeviceScrubReport } from "../../storage-node/daemons/scrubber-operations.ts";
import type { Explanation } from "../explain.ts";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

const SMALL = 40;
const LARGE = 4;
const LARGE_BYTES = 3_000_000;
const DAMAGED_DEVICE = "d1";
const SCRUB_LIMIT_MS = 60_000;

const installation = new TestInstallation(["--only", "object"]);
let client: ObjectClient;
const bodies = new Map<string, Buffer<ArrayBuffer>>();

/** None begins as another one does. */
const numberOf = (index: number): string => String(index).padStart(2, "0");

const bodyOf = (index: number): Buffer<ArrayBuffer> => Buffer.from(`small object ${numberOf(index)} `.repeat(250));

beforeAll(async () => {
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
  await client.request("PUT", "/files");
  for (let index = 0; index < SMALL; index++) bodies.set(`small-${numberOf(index)}`, bodyOf(index));
  for (let index = 0; index < LARGE; index++) bodies.set(`large-${index}`, randomBytes(LARGE_BYTES));
  for (const [name, body] of bodies) expect((await client.request("PUT", `/files/${name}`, { body })).status).toBe(201);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

const deviceFiles = (folder: string): string[] => {
  const path = join(installation.folder, "devices", DAMAGED_DEVICE, folder);
  return readdirSync(path).map((name) => join(path, name));
};

/** Flips one bit of a file, as a disk might. */
const flip = (path: string, offset: number): void => {
  const byte = readFileSync(path)[offset] ?? 0;
  const file = openSync(path, "r+");
  writeSync(file, Buffer.of(byte ^ 0x10), 0, 1, offset);
  closeSync(file);
};

/** Flips a bit where the text stands in the log of the device, some bytes behind its beginning; whether it stands there. */
const flipInLog = (text: string, behind: number): boolean => {
  for (const path of deviceFiles("log")) {
    const at = readFileSync(path).indexOf(text);
    if (at < 0) continue;
    flip(path, at + behind);
    return true;
  }
  return false;
};

type Found = { readonly device: string; readonly report: DeviceScrubReport };

const scrub = async (action: string): Promise<Found[]> => {
  const { output } = await installation.command("scrub", action, "--json");
  return JSON.parse(output);
};

/** A round over all devices, asked for; what each says at its end. */
const scrubAll = async (): Promise<Found[]> => {
  const startedMs = Date.now();
  await scrub("start");
  let found: Found[] = [];
  const isOver = ({ last, waitingEntries }: DeviceScrubReport): boolean =>
    (last?.startedMs ?? 0) >= startedMs && waitingEntries === 0;
  await expect
    .poll(async () => (found = await scrub("status")).every(({ report }) => isOver(report)), {
      timeout: SCRUB_LIMIT_MS,
      interval: 500,
    })
    .toBe(true);
  return found;
};

const explain = async (name: string, ...words: string[]): Promise<{ code: number; explanation: Explanation }> => {
  const { code, output } = await installation.command(
    "explain",
    `/${client.account}/files/${name}`,
    "--json",
    ...words,
  );
  return { code, explanation: JSON.parse(output) };
};

test("bits flipped in the log and in large bodies of a device reach no client, and are healed by a scrub that says what it healed", async () => {
  const damaged: string[] = [];
  for (let index = 0; index < SMALL; index += 2) {
    // In the body, and in the head of the record, where the name stands too.
    const isHit =
      index % 4 === 0
        ? flipInLog(`small object ${numberOf(index)} small`, 100)
        : flipInLog(`o/${client.account}/files/small-${numberOf(index)}`, 0);
    if (isHit) damaged.push(`small-${numberOf(index)}`);
  }
  // How many lie on one of four devices is chance, as the ring's.
  expect(damaged.length).toBeGreaterThan(SMALL / 10);
  const large = deviceFiles("large");
  expect(large.length).toBeGreaterThan(0);
  for (const [index, path] of large.entries()) flip(path, 200_000 + index * 100_000);

  for (const [name, body] of bodies) {
    const answer = await client.request("GET", `/files/${name}`);
    expect([name, answer.status, answer.bytes.equals(body)]).toEqual([name, 200, true]);
  }
  const first = await scrubAll();
  expect(first.map(({ device }) => device)).toEqual(["d1", "d2", "d3", "d4"]);
  expect(first.filter(({ report }) => (report.last?.damaged ?? 0) > 0).map(({ device }) => device)).toEqual(["d1"]);
  const [{ report } = { report: undefined }] = first;
  expect(report?.unhealedEntries).toBe(0);
  // Those that a read had found were healed before the scrub came to them.
  expect(report?.healedEntries).toBe(damaged.length + large.length);
  expect((await scrubAll()).map(({ report: { last } }) => last?.damaged)).toEqual([0, 0, 0, 0]);

  for (const name of [...damaged.slice(0, 2), ...damaged.slice(-2)]) {
    const { code, explanation } = await explain(name, "--read");
    expect(code).toBe(0);
    expect(explanation.replicas.map(({ report: one }) => one?.body)).toEqual(["whole", "whole", "whole"]);
    const events = explanation.replicas.find(({ device }) => device === DAMAGED_DEVICE)?.report?.events ?? [];
    expect(events.map(({ event }) => event)).toEqual(["damaged", "healed"]);
  }
  const [name = ""] = damaged;
  const { output } = await installation.command("explain", `/${client.account}/files/${name}`);
  expect(output).toMatch(/3 of 3 replicas hold its version/);
  expect(output).toMatch(/damaged: .*\n.*healed: .* from /);
  expect((await installation.command("explain", `/${client.account}/files`)).code).toBe(0);
  expect((await installation.command("explain", `/${client.account}`)).code).toBe(0);
});

test("explain tells what it can while devices are down, and what is not there", async () => {
  const absent = await explain("never");
  expect(absent.explanation.verdict).toMatch(/no replica has it/);
  await client.request("DELETE", "/files/small-01");
  expect((await explain("small-01")).explanation.verdict).toMatch(/it is deleted/);
  await installation.command("down");
  const { code, explanation } = await explain("small-03");
  expect(code).toBe(1);
  expect(explanation.verdict).toMatch(/3 of 3 replicas cannot be asked/);
  expect((await installation.command("scrub", "status")).code).toBe(1);
});
