import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { databaseTable, PostgresFixture, whyNoPostgres } from "../common/sql/postgres-fixture.ts";
import { at, listAt, PROJECT, TestBlock } from "./test-block.ts";

describe.skipIf(whyNoPostgres() !== undefined)("on PostgreSQL", () => {
  let server: PostgresFixture;
  let block: TestBlock;
  beforeAll(async () => {
    server = await PostgresFixture.start({ isDurable: false });
    block = await TestBlock.start({ database: databaseTable(server.folder) });
  });
  afterAll(async () => {
    await block[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  it("of 20 volumes made at once as many are taken as the limit says", async () => {
    await block.asAdmin("PUT", `/os-quota-sets/${PROJECT}`, { quota_set: { volumes: 7 } });
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => block.call("POST", "/volumes", { body: { volume: { size: 1 } } })),
    );
    const statuses = answers.map(({ status }) => status);
    expect(statuses.filter((status) => status === 202)).toHaveLength(7);
    expect(statuses.filter((status) => status === 413)).toHaveLength(13);
    for (const answer of answers.filter(({ status }) => status === 202)) {
      const id = String(at(answer, "volume.id"));
      await block.until(id, "available");
      expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(202);
      await block.until(id, "gone");
    }
    expect(block.host.volumes.size).toBe(0);
  });

  it("a volume grows, is attached and detached, and pages follow each other in any order", async () => {
    const ids: string[] = [];
    for (const [index, size] of [3, 1, 2].entries())
      ids.push(await block.createVolume({ size, name: `Page ${index}`, metadata: { page: String(index) } }));
    const [id = ""] = ids;
    await block.act(id, "os-extend", { new_size: 4 });
    await block.until(id, "available");
    const attachment = await block.call("POST", "/attachments", {
      body: { attachment: { volume_uuid: id, instance_uuid: id, connector: { host: "elsewhere" } } },
    });
    expect(attachment.status).toBe(200);
    const path = `/attachments/${String(at(attachment, "attachment.id"))}`;
    expect((await block.call("POST", `${path}/action`, { body: { "os-complete": null } })).status).toBe(204);
    expect((await block.call("DELETE", path)).status).toBe(200);
    const names: unknown[] = [];
    let marker = "";
    for (;;) {
      const page = listAt(await block.call("GET", `/volumes?limit=1&sort=size:desc,name:asc${marker}`), "volumes");
      names.push(...page.map((one) => one["name"]));
      if (page.length === 0) break;
      marker = `&marker=${String(page[0]?.["id"])}`;
    }
    expect(names).toEqual(["Page 0", "Page 2", "Page 1"]);
    expect(listAt(await block.call("GET", "/volumes/detail?name~=age+1&bootable=false"), "volumes")).toHaveLength(1);
    const found = await block.call("GET", `/volumes?metadata=${encodeURIComponent("{'page': '2'}")}`);
    expect(listAt(found, "volumes")).toHaveLength(1);
    expect(at(await block.call("GET", "/volumes/summary"), "volume-summary.total_size")).toBe(7);
  });

  it("types in use are kept, names are taken once", async () => {
    const made = await block.asAdmin("POST", "/types", { volume_type: { name: "gold" } });
    expect((await block.asAdmin("POST", "/types", { volume_type: { name: "gold" } })).status).toBe(409);
    const id = String(at(made, "volume_type.id"));
    await block.createVolume({ size: 1, volume_type: "gold" });
    expect((await block.asAdmin("DELETE", `/types/${id}`)).status).toBe(400);
  });
});
