import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { RingsteadError } from "./errors.ts";
import { createLog } from "./log.ts";
import { sleep } from "./worker.ts";

const folder = mkdtempSync(join(tmpdir(), "ringstead-log-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("writes one JSON object a line, with the fields of its child", async () => {
  const file = join(folder, "one.log");
  const log = createLog({ service: "test", file, clock: { nowMs: () => 0 } }).child({ requestId: "r1" });
  log.error("it broke", { error: new RingsteadError("gone", "no more", { name: "a" }), size: 5n });
  await sleep(100);
  const line = JSON.parse(readFileSync(file, "utf8"));
  expect(line).toMatchObject({
    time: "1970-01-01T00:00:00.000Z",
    level: "error",
    service: "test",
    requestId: "r1",
    message: "it broke",
    error: { code: "gone", message: "no more", fields: { name: "a" } },
    size: "5",
  });
});

it("keeps a bounded number of rotated files", async () => {
  const file = join(folder, "many.log");
  const log = createLog({ service: "test", file, rotateBytes: 200 });
  for (let round = 0; round < 9; round += 1) {
    log.info("x".repeat(200));
    await sleep(60);
  }
  const files = readdirSync(folder).filter((name) => name.startsWith("many.log"));
  expect(files.toSorted()).toEqual(["many.log", "many.log.1", "many.log.2", "many.log.3", "many.log.4", "many.log.5"]);
});
