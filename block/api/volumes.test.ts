import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { at, listAt, OTHER_PROJECT, PROJECT, TestBlock } from "../test-block.ts";

let block: TestBlock;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { volumes: 1000, gigabytes: 5000 } });
});
afterAll(() => block[Symbol.asyncDispose]());

describe("volumes", () => {
  it("a volume is made, shown, changed and deleted, and the host has it just as long", async () => {
    const answer = await block.call("POST", "/volumes", {
      body: { volume: { size: 2, name: "disk", description: "for tests", metadata: { purpose: "testing" } } },
    });
    expect(answer.status).toBe(202);
    const id = String(at(answer, "volume.id"));
    expect(at(answer, "volume.status")).toBe("creating");
    expect(answer.body).not.toHaveProperty(["volume", "os-vol-tenant-attr:tenant_id"]);
    await block.until(id, "available");
    expect(block.host.volumes.get(id)?.sizeBytes).toBe(2 * 1024 ** 3);
    const shown = await block.call("GET", `/volumes/${id}`);
    expect(shown.body["volume"]).toMatchObject({
      id,
      name: "disk",
      size: 2,
      bootable: "false",
      metadata: { purpose: "testing" },
      volume_type: "__DEFAULT__",
      attachments: [],
      "os-vol-tenant-attr:tenant_id": PROJECT,
    });
    expect(shown.body["volume"]).not.toHaveProperty("os-vol-host-attr:host");
    const asAdmin = await block.asAdmin("GET", `/volumes/${id}`);
    expect(at(asAdmin, "volume.os-vol-host-attr:host")).toBe("local@lvm#lvm");
    const changed = await block.call("PUT", `/volumes/${id}`, { body: { volume: { name: "renamed" } } });
    expect(changed.status).toBe(200);
    expect(at(changed, "volume.name")).toBe("renamed");
    expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(202);
    await block.until(id, "gone");
    expect(block.host.volumes.has(id)).toBe(false);
  });

  it.each([
    ["a size of 0", { size: 0 }, 400],
    ["a negative size", { size: -1 }, 400],
    ["a fractional size", { size: 1.5 }, 400],
    ["a size in letters", { size: "#$%" }, 400],
    ["an empty size", { size: "" }, 400],
    ["no size", {}, 400],
    ["a size beyond what numbers hold", { size: 1e12 }, 400],
    ["a name of 256 letters", { size: 1, name: "x".repeat(256) }, 400],
    ["a metadata value of 256 letters", { size: 1, metadata: { key: "x".repeat(256) } }, 400],
    ["an empty metadata key", { size: 1, metadata: { "": "x" } }, 400],
    ["metadata that is no text", { size: 1, metadata: { key: 1 } }, 400],
    ["a type that is not there", { size: 1, volume_type: "nothing" }, 404],
    ["a snapshot that is not there", { size: 1, snapshot_id: "44444444-4444-4444-8444-444444444444" }, 404],
    ["a source that is not there", { size: 1, source_volid: "44444444-4444-4444-8444-444444444444" }, 404],
    ["a zone that is not there", { size: 1, availability_zone: "mars" }, 400],
    ["the character NUL", { size: 1, name: "a\0b" }, 400],
  ])("a volume with %s is refused", async (_title, volume, status) => {
    const answer = await block.call("POST", "/volumes", { body: { volume } });
    expect(answer.status).toBe(status);
    const fault = status === 404 ? "itemNotFound" : "badRequest";
    expect(answer.body).toMatchObject({ [fault]: { code: status, message: expect.any(String) } });
  });

  it("a volume that no pool has room for ends in error, and can be deleted", async () => {
    const id = await block.createVolume({ size: 500 }, "error");
    expect(block.host.volumes.has(id)).toBe(false);
    await block.call("DELETE", `/volumes/${id}`);
    await block.until(id, "gone");
  });

  it("a copy has its source's size, and its source is not deleted under it", async () => {
    const source = await block.createVolume({ size: 2 });
    const held = Promise.withResolvers<void>();
    block.host.intercept = (method, moment) =>
      method === "createVolume" && moment === "before" ? held.promise : undefined;
    const copy = await block.createVolume({ source_volid: source }, "creating");
    expect((await block.call("DELETE", `/volumes/${source}`)).status).toBe(400);
    held.resolve();
    block.host.intercept = () => {};
    await block.until(copy, "available");
    expect(block.host.volumes.get(copy)?.sizeBytes).toBe(2 * 1024 ** 3);
    for (const id of [source, copy]) await block.call("DELETE", `/volumes/${id}`);
  });

  it("others than the owner learn nothing of a volume, readers change nothing, administrators see all", async () => {
    const id = await block.createVolume();
    const stranger = `member:${OTHER_PROJECT}`;
    const reader = `reader:${PROJECT}`;
    for (const [method, path] of [
      ["GET", `/volumes/${id}`],
      ["DELETE", `/volumes/${id}`],
      ["GET", `/volumes/${id}/metadata`],
    ] as const) {
      expect((await block.call(method, path, { token: stranger })).status).toBe(404);
    }
    expect((await block.act(id, "os-extend", { new_size: 2 }, stranger)).status).toBe(404);
    expect((await block.call("DELETE", `/volumes/${id}`, { token: reader })).status).toBe(403);
    expect((await block.call("POST", "/volumes", { token: reader, body: { volume: { size: 1 } } })).status).toBe(403);
    expect((await block.call("GET", `/volumes/${id}`, { token: reader })).status).toBe(200);
    expect((await block.call("GET", `/volumes/${id}`, { token: `admin:${OTHER_PROJECT}` })).status).toBe(200);
    expect((await block.call("GET", `/${OTHER_PROJECT}/volumes`)).status).toBe(400);
    expect((await block.call("GET", `/${PROJECT}/volumes/${id}`)).status).toBe(200);
    expect((await block.call("GET", "/volumes", { token: "" })).status).toBe(401);
    expect((await block.call("GET", "/volumes", { token: "nobody:1" })).status).toBe(401);
    await block.call("DELETE", `/volumes/${id}`);
  });

  it("metadata is shown, added, replaced and removed, key by key too", async () => {
    const id = await block.createVolume({ size: 1, metadata: { a: "1" } });
    const path = `/volumes/${id}/metadata`;
    expect((await block.call("POST", path, { body: { metadata: { b: "2" } } })).body).toEqual({
      metadata: { a: "1", b: "2" },
    });
    expect((await block.call("PUT", path, { body: { metadata: { c: "3" } } })).body).toEqual({ metadata: { c: "3" } });
    expect((await block.call("PUT", `${path}/c`, { body: { meta: { c: "4" } } })).body).toEqual({ meta: { c: "4" } });
    expect((await block.call("PUT", `${path}/c`, { body: { meta: { d: "4" } } })).status).toBe(400);
    expect((await block.call("GET", `${path}/c`)).body).toEqual({ meta: { c: "4" } });
    expect((await block.call("DELETE", `${path}/c`)).status).toBe(200);
    expect((await block.call("DELETE", `${path}/c`)).status).toBe(404);
    expect((await block.call("GET", path)).body).toEqual({ metadata: {} });
    expect((await block.call("PUT", `${path}/__proto__`, { body: { meta: { x: "1" } } })).status).toBe(400);
    const many = Object.fromEntries(Array.from({ length: 129 }, (_, index) => [`k${index}`, "v"]));
    expect((await block.call("POST", path, { body: { metadata: many } })).status).toBe(400);
    await block.call("DELETE", `/volumes/${id}`);
  });
});

describe("lists", () => {
  it("pages follow each other by their links, in any order, and count what is on all of them", async () => {
    const ids: string[] = [];
    for (const [index, size] of [3, 1, 2, 1].entries())
      ids.push(await block.createVolume({ size, name: `page ${index}`, metadata: { page: String(index % 2) } }));
    const follow = async (first: string): Promise<string[]> => {
      const names: string[] = [];
      let path: string | undefined = first;
      while (path !== undefined) {
        const answer = await block.call("GET", path);
        expect(answer.status).toBe(200);
        names.push(...listAt(answer, "volumes").map((one) => String(one["name"])));
        const links = answer.body["volumes_links"];
        path = Array.isArray(links) ? String((links[0] as { href: string }).href).replace(/^.*\/v3/, "") : undefined;
      }
      return names.filter((name) => name.startsWith("page "));
    };
    expect(await follow("/volumes?limit=1&sort=name:asc")).toEqual(["page 0", "page 1", "page 2", "page 3"]);
    expect(await follow("/volumes/detail?limit=2&sort=size:desc,name:asc")).toEqual([
      "page 0",
      "page 2",
      "page 1",
      "page 3",
    ]);
    expect(await follow(`/${PROJECT}/volumes?limit=3&sort_key=name&sort_dir=desc`)).toEqual([
      "page 3",
      "page 2",
      "page 1",
      "page 0",
    ]);
    const names = async (query: string): Promise<unknown[]> =>
      listAt(await block.call("GET", `/volumes?${query}&sort=name:asc`), "volumes").map((one) => one["name"]);
    expect(await names("name=page+2")).toEqual(["page 2"]);
    expect(await names("name~=page")).toHaveLength(4);
    expect(await names("status=null")).toEqual([]);
    expect(await names(`metadata=${encodeURIComponent("{'page': '1'}")}`)).toEqual(["page 1", "page 3"]);
    expect(await names("created_at=lt:2001-01-01T00:00:00")).toEqual([]);
    expect(await names("bootable=true")).toEqual([]);
    const counted = await block.call("GET", "/volumes?limit=1&with_count=True");
    expect(Number(counted.body["count"])).toBeGreaterThanOrEqual(4);
    expect((await block.call("GET", "/volumes?limit=0")).body["volumes"]).toEqual([]);
    const full = await block.call("GET", "/volumes?limit=4&name~=page");
    expect(full.body["volumes_links"]).toMatchObject([{ rel: "next" }]);
    expect((await block.call("GET", "/volumes?limit=5&name~=page")).body).not.toHaveProperty("volumes_links");
    const summary = await block.call("GET", "/volumes/summary");
    expect(summary.body["volume-summary"]).toMatchObject({ metadata: { page: expect.arrayContaining(["0", "1"]) } });
    for (const query of [
      "limit=-1",
      "limit=x",
      "sort=nothing",
      "sort=name:up",
      "marker=x",
      "bootable=perhaps",
      "metadata=x",
    ])
      expect([query, (await block.call("GET", `/volumes?${query}`)).status]).toEqual([
        query,
        query === "marker=x" ? 404 : 400,
      ]);
    expect((await block.call("GET", "/volumes", { token: `admin:${OTHER_PROJECT}` })).body["volumes"]).toEqual([]);
    const all = await block.call("GET", "/volumes?all_tenants=1", { token: `admin:${OTHER_PROJECT}` });
    expect(listAt(all, "volumes").length).toBeGreaterThanOrEqual(4);
    const notForAll = await block.call("GET", "/volumes?all_tenants=1", { token: `member:${OTHER_PROJECT}` });
    expect(notForAll.body["volumes"]).toEqual([]);
    for (const id of ids) await block.call("DELETE", `/volumes/${id}`);
  });
});

describe("the edge", () => {
  it("microversions are negotiated, said in each answer, and decide what there is", async () => {
    const asked = (version: string, path = "/volumes") => block.call("GET", path, { version });
    expect((await asked("")).headers.get("openstack-api-version")).toBe("volume 3.0");
    expect((await asked("compute 2.1, volume 3.27")).headers.get("openstack-api-version")).toBe("volume 3.27");
    const latest = await asked("volume latest");
    expect(latest.headers.get("openstack-api-version")).toBe("volume 3.71");
    expect(latest.headers.get("vary")).toContain("OpenStack-API-Version");
    expect((await asked("volume 3.72")).status).toBe(406);
    expect((await asked("volume 2.0")).status).toBe(406);
    expect((await asked("volume three")).status).toBe(400);
    expect((await asked("volume 3.26", "/attachments")).status).toBe(404);
    expect((await asked("volume 3.27", "/attachments")).status).toBe(200);
    expect((await asked("volume 3.11", "/volumes/summary")).status).toBe(404);
  });

  it("what is not built answers 501 with its name, at both paths; what does not exist 404; another method 405", async () => {
    for (const path of ["/os-hosts", `/${PROJECT}/os-hosts`]) {
      const answer = await block.call("PUT", path);
      expect(answer.status).toBe(501);
      expect(String(at(answer, "notImplemented.message"))).toContain("/os-hosts");
    }
    expect((await block.call("GET", "/nothing/here")).status).toBe(404);
    expect((await block.call("PUT", "/volumes")).status).toBe(405);
    const id = await block.createVolume();
    expect((await block.act(id, "os-reimage", {})).status).toBe(501);
    expect((await block.act(id, "os-nothing", {})).status).toBe(400);
    await block.call("DELETE", `/volumes/${id}`);
  });

  it("a thing that is asked for without a name is not found: a slash at a path's end counts", async () => {
    for (const path of ["/volumes/", `/${PROJECT}/volumes/`, "/snapshots/"]) {
      expect((await block.call("GET", path)).status).toBe(404);
      expect((await block.call("DELETE", path)).status).toBe(404);
    }
    expect((await block.call("GET", "/")).status).toBe(200);
  });

  it("versions are told to everybody", async () => {
    const answer = await block.call("GET", "/", { token: "", version: "" });
    expect(answer.status).toBe(200);
    expect(listAt(answer, "versions")[0]).toMatchObject({
      id: "v3.0",
      status: "CURRENT",
      version: "3.71",
      min_version: "3.0",
    });
  });

  it("a body that is too long is refused", async () => {
    const answer = await block.call("POST", "/volumes", { body: { volume: { size: 1, name: "x".repeat(200_000) } } });
    expect(answer.status).toBe(413);
  });
});
