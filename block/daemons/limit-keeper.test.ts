import { afterEach, expect, it } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { at, TestBlock } from "../test-block.ts";

const started: TestBlock[] = [];
afterEach(async () => {
  for (const block of started.splice(0)) await block[Symbol.asyncDispose]();
});

it("a host that could not set limits is told them again until it can", async () => {
  const block = await TestBlock.start();
  started.push(block);
  const made = await block.asAdmin("POST", "/types", { volume_type: { name: "limited" } });
  const specs = await block.asAdmin("POST", "/qos-specs", { qos_specs: { name: "some", total_iops_sec: "100" } });
  let refusals = 0;
  block.host.intercept = (method, moment) => {
    if (method !== "limitVolumes" || moment !== "before" || refusals === 2) return;
    refusals += 1;
    throw new RingsteadError("daemon-lost", "the volume's daemon is away");
  };
  const type = String(at(made, "volume_type.id"));
  await block.asAdmin("GET", `/qos-specs/${String(at(specs, "qos_specs.id"))}/associate?vol_type_id=${type}`);
  const id = await block.createVolume({ volume_type: "limited", size: 1 });
  await expect.poll(() => block.host.limits.get(id), { timeout: 30_000 }).toEqual({ "iops-total": 100 });
  expect(refusals).toBe(2);
});
