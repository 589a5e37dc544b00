import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestInstallation } from "./installation.ts";

const installation = new TestInstallation();
let work: string;

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "ringstead-client-"));
  await installation.up();
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
});

/** A token and the storage URL by v1 auth. */
const login = async (): Promise<{ token: string; url: string }> => {
  const { url, user, key } = installation.ready().swiftAuthV1;
  const response = await fetch(url, { headers: { "X-Auth-User": user, "X-Auth-Key": key } });
  expect(response.status).toBe(200);
  return { token: response.headers.get("x-auth-token")!, url: response.headers.get("x-storage-url")! };
};

const request = async (
  method: string,
  path: string,
  options: { headers?: Record<string, string>; body?: string } = {},
): Promise<{ status: number; headers: Headers; text: string }> => {
  const { token, url } = await login();
  const response = await fetch(url + path, {
    method,
    headers: { "X-Auth-Token": token, ...options.headers },
    ...(options.body === undefined ? {} : { body: options.body }),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
};

test("a large file that the swift client stores reads back byte for byte, whole and in ranges", async () => {
  const bytes = randomBytes(7_340_033);
  writeFileSync(join(work, "disk.img"), bytes);
  await installation.client("swift", ["upload", "images", "disk.img"], work);
  await installation.client("swift", ["download", "images", "disk.img", "-o", "back.img"], work);
  expect(readFileSync(join(work, "back.img")).equals(bytes)).toBe(true);
  const { token, url } = await login();
  const part = await fetch(`${url}/images/disk.img`, {
    headers: { "X-Auth-Token": token, Range: "bytes=600000-1200000" },
  });
  expect(part.status).toBe(206);
  expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(600_000, 1_200_001))).toBe(true);
});

test("a listing shows every acknowledged PUT and DELETE at once, with exact counts", async () => {
  await request("PUT", "/lists");
  for (const name of ["a/1", "a/2", "b", "c/x/y"])
    expect((await request("PUT", `/lists/${name}`, { body: name })).status).toBe(201);
  const all = await request("GET", "/lists?format=json");
  expect(JSON.parse(all.text).map((row: { name: string }) => row.name)).toEqual(["a/1", "a/2", "b", "c/x/y"]);
  expect(all.headers.get("x-container-object-count")).toBe("4");
  expect(all.headers.get("x-container-bytes-used")).toBe("12");
  expect((await request("DELETE", "/lists/a/2")).status).toBe(204);
  const rolled = await request("GET", "/lists?format=json&delimiter=/");
  expect(JSON.parse(rolled.text).map((row: { name?: string; subdir?: string }) => row.subdir ?? row.name)).toEqual([
    "a/",
    "b",
    "c/",
  ]);
  expect((await request("GET", "/lists?reverse=true&limit=2")).text).toBe("c/x/y\nb\n");
  expect((await request("HEAD", "/lists")).headers.get("x-container-object-count")).toBe("3");
});

test("exactly one of many concurrent creations with If-None-Match: * wins", async () => {
  await request("PUT", "/races");
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, index) =>
      request("PUT", "/races/one", { body: `writer ${index}`, headers: { "If-None-Match": "*" } }),
    ),
  );
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
  expect(answers.every(({ status }) => status === 201 || status === 412 || status === 503)).toBe(true);
  const winner = answers.findIndex(({ status }) => status === 201);
  expect((await request("GET", "/races/one")).text).toBe(`writer ${winner}`);
});

test("a container with an object is kept, an empty one goes, and a new one of its name starts empty", async () => {
  await request("PUT", "/life");
  await request("PUT", "/life/object", { body: "x" });
  expect((await request("DELETE", "/life")).status).toBe(409);
  expect((await request("DELETE", "/life/object")).status).toBe(204);
  expect((await request("DELETE", "/life/object")).status).toBe(404);
  expect((await request("DELETE", "/life")).status).toBe(204);
  expect((await request("GET", "/life")).status).toBe(404);
  expect((await request("PUT", "/life/object", { body: "x" })).status).toBe(404);
  expect((await request("PUT", "/life")).status).toBe(201);
  expect((await request("GET", "/life")).text).toBe("");
});

test("metadata is replaced by POST, copied by COPY, and the wrong ETag is refused with 422", async () => {
  await request("PUT", "/meta");
  await request("PUT", "/meta/a", {
    body: "text",
    headers: { "X-Object-Meta-Color": "red", "Content-Type": "text/x-test" },
  });
  expect((await request("POST", "/meta/a", { headers: { "X-Object-Meta-Size": "big" } })).status).toBe(202);
  const head = await request("HEAD", "/meta/a");
  expect(head.headers.get("x-object-meta-color")).toBeNull();
  expect(head.headers.get("x-object-meta-size")).toBe("big");
  expect((await request("COPY", "/meta/a", { headers: { Destination: "meta/b" } })).status).toBe(201);
  const copy = await request("GET", "/meta/b");
  expect([copy.text, copy.headers.get("x-object-meta-size"), copy.headers.get("content-type")]).toEqual([
    "text",
    "big",
    "text/x-test",
  ]);
  expect((await request("PUT", "/meta/c", { body: "text", headers: { ETag: "0".repeat(32) } })).status).toBe(422);
  expect((await request("GET", "/meta/c")).status).toBe(404);
});

test("only a read ACL opens a container to strangers, and only for what it says", async () => {
  await request("PUT", "/open");
  await request("PUT", "/open/page", { body: "hello" });
  const { url } = await login();
  expect((await fetch(`${url}/open/page`)).status).toBe(401);
  expect((await request("POST", "/open", { headers: { "X-Container-Read": ".r:*" } })).status).toBe(204);
  await expect.poll(async () => (await fetch(`${url}/open/page`)).status, { timeout: 5000 }).toBe(200);
  expect((await fetch(`${url}/open`)).status).toBe(401);
  expect((await fetch(`${url}/open/page`, { method: "DELETE" })).status).toBe(401);
  expect((await fetch(`${url}/open/page`, { headers: { "X-Auth-Token": "not-a-token" } })).status).toBe(401);
});

test("bad names, ranges and lengths get an exact status and words", async () => {
  await request("PUT", "/bad");
  await request("PUT", "/bad/o", { body: "0123456789" });
  expect((await request("GET", "/bad/%00")).status).toBe(412);
  expect((await request("GET", "/bad/%ff%fe")).status).toBe(412);
  expect((await request("PUT", `/bad/${"x".repeat(1025)}`, { body: "" })).status).toBe(400);
  expect((await request("PUT", `/${"x".repeat(257)}`)).status).toBe(400);
  expect((await request("GET", "/bad/o", { headers: { Range: "bytes=10-" } })).status).toBe(416);
  expect((await request("GET", "/bad?limit=10001")).status).toBe(412);
  expect((await request("PATCH", "/bad/o")).status).toBe(405);
});
