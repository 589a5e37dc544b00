import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

/**
 * fixtures/installation-1.tar.zst: the DIR of an installation of three devices as the first release left it (commit b2b543d), stopped once in
 * between and killed at the end. Whatever is changed about formats, the present code opens it and reads all of it.
 */
const ARCHIVE = join(import.meta.dirname, "fixtures", "installation-1.tar.zst");

const installation = new TestInstallation(["--only", "object"]);
let client: ObjectClient;

const bodyOf = (text: string, bytes: number): Buffer<ArrayBuffer> => Buffer.alloc(bytes, `${text}|`);

/** What was in the container when everything was killed. */
const KEPT = new Map<string, Buffer>([
  ...Array.from({ length: 20 }, (_, index): [string, Buffer] => [
    `before-${index}`,
    index < 5 ? bodyOf(`second ${index}`, 2000 + index) : bodyOf(`first ${index}`, 1000 + index),
  ]).filter((_, index) => index < 5 || index >= 8),
  ["empty", Buffer.alloc(0)],
  ["large", bodyOf("large", 1_500_000)],
  ["middle", bodyOf("middle", 200_000)],
  ["ä name/with/slashes", bodyOf("name", 77)],
]);

beforeAll(async () => {
  execFileSync("tar", ["--extract", `--directory=${installation.folder}`], {
    input: zstdDecompressSync(readFileSync(ARCHIVE)),
  });
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
});

test("an installation of the first release starts, and every object, its metadata and the listing are as they were", async () => {
  const listed = await client.request("GET", "/kept");
  expect(listed.headers.get("x-container-meta-colour")).toBe("blue");
  expect(listed.text.split("\n").filter(Boolean)).toEqual([...KEPT.keys()].toSorted());
  for (const [name, body] of KEPT) {
    const answer = await client.request("GET", `/kept/${encodeURIComponent(name)}`);
    expect([name, answer.status, answer.bytes.equals(body)]).toEqual([name, 200, true]);
    const colour = answer.headers.get("x-object-meta-colour");
    expect([name, colour]).toEqual([name, ["before-8", "before-9", "before-10"].includes(name) ? "red" : null]);
  }
  expect((await client.request("GET", "/kept/before-6")).status).toBe(404);
  expect((await client.request("GET", "/gone")).status).toBe(404);
});

test("each replica of it reads well, and can be written", async () => {
  for (const name of ["large", "middle", "before-9"]) {
    const path = `/${client.account}/kept/${name}`;
    expect([name, (await installation.command("explain", path, "--read")).code]).toEqual([name, 0]);
  }
  for (const name of ["large", "before-9"]) {
    expect((await client.request("PUT", `/kept/${name}`, { body: "of today" })).status).toBe(201);
    expect((await client.request("GET", `/kept/${name}`)).text).toBe("of today");
  }
  expect((await client.request("DELETE", "/kept/middle")).status).toBe(204);
});
