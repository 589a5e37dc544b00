import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

const installation = new TestInstallation();
let work: string;
let client: ObjectClient;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "ringstead-client-"));
  client = await ObjectClient.login((await installation.up()).swiftAuthV1);
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
});

test("a large file that the swift client stores reads back byte for byte, whole and in ranges", async () => {
  const bytes = randomBytes(7_340_033);
  writeFileSync(join(work, "disk.img"), bytes);
  await installation.client("swift", ["upload", "images", "disk.img"], work);
  await installation.client("swift", ["download", "images", "disk.img", "-o", "back.img"], work);
  expect(readFileSync(join(work, "back.img")).equals(bytes)).toBe(true);
  const part = await client.request("GET", "/images/disk.img", { headers: { range: "bytes=600000-1200000" } });
  expect(part.status).toBe(206);
  expect(part.bytes.equals(bytes.subarray(600_000, 1_200_001))).toBe(true);
});

test("a download goes on with the version that it began with, however often the object is overwritten meanwhile", async () => {
  await client.request("PUT", "/overwritten");
  const versions = Array.from({ length: 4 }, () => randomBytes(12 * 1024 * 1024));
  expect((await client.request("PUT", "/overwritten/large", { body: versions[0]! })).status).toBe(201);
  const response = await fetch(`${client.url}/overwritten/large`, { headers: { "x-auth-token": client.token } });
  const reader = (response.body ?? new ReadableStream<Uint8Array>()).getReader();
  const chunks: Uint8Array[] = [];
  const read = async (): Promise<boolean> => {
    const { done, value } = await reader.read();
    if (value !== undefined) chunks.push(value);
    return !done;
  };
  await read();
  for (const body of versions.slice(1)) {
    expect((await client.request("PUT", "/overwritten/large", { body })).status).toBe(201);
    await read();
  }
  while (await read());
  expect(Buffer.concat(chunks).equals(versions[0]!)).toBe(true);
  expect((await client.request("GET", "/overwritten/large")).bytes.equals(versions[3]!)).toBe(true);
});

test("objects of any size are read whole while others overwrite them", async () => {
  const sizes = [4096, 100_000, 300_000, 3_000_000];
  let isOver = false;
  const [bad, whole]: [string[], number[]] = [[], []];
  const write = async (size: number): Promise<void> => {
    while (!isOver) {
      const body = Buffer.alloc(size, randomBytes(1));
      const { status } = await client.request("PUT", `/overwritten/${size}`, { body });
      if (status !== 201) bad.push(`PUT ${size}: ${status}`);
    }
  };
  const get = async (size: number): Promise<void> => {
    for (let count = 0; count < 60; count++) {
      const { status, bytes } = await client.request("GET", `/overwritten/${size}`);
      const [first] = bytes;
      if (status !== 200 || bytes.length !== size || !bytes.equals(Buffer.alloc(size, first)))
        bad.push(`GET ${size}: ${status}, ${bytes.length} bytes: ${bytes.subarray(0, 100).toString("latin1")}`);
      else whole.push(size);
    }
  };
  await client.request("PUT", "/overwritten");
  for (const size of sizes) await client.request("PUT", `/overwritten/${size}`, { body: Buffer.alloc(size) });
  const writers = sizes.flatMap((size) => [write(size), write(size)]);
  await Promise.all(sizes.flatMap((size) => [get(size), get(size)]));
  isOver = true;
  await Promise.all(writers);
  expect(bad).toEqual([]);
  expect(whole).toHaveLength(60 * 2 * sizes.length);
});

test("a listing shows every acknowledged PUT and DELETE at once, with exact counts", async () => {
  await client.request("PUT", "/lists");
  for (const name of ["a/1", "a/2", "b", "c/x/y"])
    expect((await client.request("PUT", `/lists/${name}`, { body: name })).status).toBe(201);
  const all = await client.request("GET", "/lists?format=json");
  expect(JSON.parse(all.text).map((row: { name: string }) => row.name)).toEqual(["a/1", "a/2", "b", "c/x/y"]);
  expect(all.headers.get("x-container-object-count")).toBe("4");
  expect(all.headers.get("x-container-bytes-used")).toBe("12");
  expect((await client.request("DELETE", "/lists/a/2")).status).toBe(204);
  const rolled = await client.request("GET", "/lists?format=json&delimiter=/");
  expect(JSON.parse(rolled.text).map((row: { name?: string; subdir?: string }) => row.subdir ?? row.name)).toEqual([
    "a/",
    "b",
    "c/",
  ]);
  expect((await client.request("GET", "/lists?reverse=true&limit=2")).text).toBe("c/x/y\nb\n");
  expect((await client.request("HEAD", "/lists")).headers.get("x-container-object-count")).toBe("3");
});

test("exactly one of many concurrent creations with If-None-Match: * wins", async () => {
  await client.request("PUT", "/races");
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, index) =>
      client.request("PUT", "/races/one", { body: `writer ${index}`, headers: { "If-None-Match": "*" } }),
    ),
  );
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
  expect(answers.every(({ status }) => status === 201 || status === 412 || status === 503)).toBe(true);
  const winner = answers.findIndex(({ status }) => status === 201);
  expect((await client.request("GET", "/races/one")).text).toBe(`writer ${winner}`);
});

test("a container with an object is kept, an empty one goes, and a new one of its name starts empty", async () => {
  await client.request("PUT", "/life");
  await client.request("PUT", "/life/object", { body: "x" });
  expect((await client.request("DELETE", "/life")).status).toBe(409);
  expect((await client.request("DELETE", "/life/object")).status).toBe(204);
  expect((await client.request("DELETE", "/life/object")).status).toBe(404);
  expect((await client.request("DELETE", "/life")).status).toBe(204);
  expect((await client.request("GET", "/life")).status).toBe(404);
  expect((await client.request("PUT", "/life/object", { body: "x" })).status).toBe(404);
  expect((await client.request("PUT", "/life")).status).toBe(201);
  expect((await client.request("GET", "/life")).text).toBe("");
});

test("metadata is replaced by POST, copied by COPY, and the wrong ETag is refused with 422", async () => {
  await client.request("PUT", "/meta");
  await client.request("PUT", "/meta/a", {
    body: "text",
    headers: { "X-Object-Meta-Color": "red", "Content-Type": "text/x-test" },
  });
  expect((await client.request("POST", "/meta/a", { headers: { "X-Object-Meta-Size": "big" } })).status).toBe(202);
  const head = await client.request("HEAD", "/meta/a");
  expect(head.headers.get("x-object-meta-color")).toBeNull();
  expect(head.headers.get("x-object-meta-size")).toBe("big");
  expect((await client.request("COPY", "/meta/a", { headers: { Destination: "meta/b" } })).status).toBe(201);
  const copy = await client.request("GET", "/meta/b");
  expect([copy.text, copy.headers.get("x-object-meta-size"), copy.headers.get("content-type")]).toEqual([
    "text",
    "big",
    "text/x-test",
  ]);
  expect((await client.request("PUT", "/meta/c", { body: "text", headers: { ETag: "0".repeat(32) } })).status).toBe(
    422,
  );
  expect((await client.request("GET", "/meta/c")).status).toBe(404);
});

test("only a read ACL opens a container to strangers, and only for what it says", async () => {
  await client.request("PUT", "/open");
  await client.request("PUT", "/open/page", { body: "hello" });
  const { url } = client;
  expect((await fetch(`${url}/open/page`)).status).toBe(401);
  expect((await client.request("POST", "/open", { headers: { "X-Container-Read": ".r:*" } })).status).toBe(204);
  await expect.poll(async () => (await fetch(`${url}/open/page`)).status, { timeout: 5000 }).toBe(200);
  expect((await fetch(`${url}/open`)).status).toBe(401);
  expect((await fetch(`${url}/open/page`, { method: "DELETE" })).status).toBe(401);
  expect((await fetch(`${url}/open/page`, { headers: { "X-Auth-Token": "not-a-token" } })).status).toBe(401);
});

test("bad names, ranges and lengths get an exact status and words", async () => {
  await client.request("PUT", "/bad");
  await client.request("PUT", "/bad/o", { body: "0123456789" });
  expect((await client.request("GET", "/bad/%00")).status).toBe(412);
  expect((await client.request("GET", "/bad/%ff%fe")).status).toBe(412);
  expect((await client.request("PUT", `/bad/${"x".repeat(1025)}`, { body: "" })).status).toBe(400);
  expect((await client.request("PUT", `/${"x".repeat(257)}`)).status).toBe(400);
  expect((await client.request("GET", "/bad/o", { headers: { Range: "bytes=10-" } })).status).toBe(416);
  expect((await client.request("GET", "/bad?limit=10001")).status).toBe(412);
  expect((await client.request("PATCH", "/bad/o")).status).toBe(405);
});
