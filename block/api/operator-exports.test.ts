import { afterAll, beforeAll, expect, it } from "vitest";
import { at, TestBlock } from "../test-block.ts";

let block: TestBlock;
beforeAll(async () => {
  block = await TestBlock.start();
  await block.start();
});
afterAll(() => block[Symbol.asyncDispose]());

it("a volume that an operator has exported shows as in use and is not deleted, until that ends or force is used", async () => {
  const [id, other] = [await block.createVolume({ size: 1 }), await block.createVolume({ size: 1 })];
  for (const volumeId of [id, other])
    await block.host.exportVolume({ volumeId, attachmentId: volumeId, transport: "unix", isReadOnly: false });
  await block.until(id, "in-use");
  const refused = await block.call("DELETE", `/volumes/${id}`);
  expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("by an operator")]);
  await block.host.unexportVolume(id, id);
  expect((await block.call("DELETE", `/volumes/${id}`)).status).toBe(202);
  await block.until(id, "gone");
  const forced = await block.asAdmin("POST", `/volumes/${other}/action`, { "os-force_delete": {} });
  expect(forced.status).toBe(202);
  await block.until(other, "gone");
});

it("a group is not deleted with a volume that an operator has open", async () => {
  const type = await block.asAdmin("POST", "/group_types", { group_type: { name: "plain" } });
  const fields = { name: "all", group_type: at(type, "group_type.id"), volume_types: ["__DEFAULT__"] };
  const group = at(await block.call("POST", "/groups", { body: { group: fields } }), "group.id");
  const volumeId = await block.createVolume({ size: 1, group_id: group });
  await block.host.exportVolume({ volumeId, attachmentId: volumeId, transport: "unix", isReadOnly: false });
  const remove = () =>
    block.call("POST", `/groups/${String(group)}/action`, { body: { delete: { "delete-volumes": true } } });
  const refused = await remove();
  expect([refused.status, JSON.stringify(refused.body)]).toEqual([400, expect.stringContaining("by an operator")]);
  await block.host.unexportVolume(volumeId, volumeId);
  expect((await remove()).status).toBe(202);
  await block.until(volumeId, "gone");
});
