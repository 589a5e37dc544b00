import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { TestHost } from "../test-host.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** Milliseconds that so many writes of 4 KiB take. */
const timeOf = async (uri: string, writes: number): Promise<number> => {
  const began = performance.now();
  const words = ["bench", "-f", "raw", "-w", "-c", String(writes), "-d", "16", "-s", "4096", "-t", "none", uri];
  await run("qemu-img", words, { timeout: 60_000 });
  return performance.now() - began;
};

/** What is slower for another reason passes too: it is shown that limits are kept, not how exactly. */
test("a volume does no more than it may, from now on, after a snapshot and upon the next daemon", async () => {
  const fixture = new TestHost("file");
  const host = await fixture.open();
  const volumeId = await fixture.newVolume(16 * MIB);
  await fixture.withExport(volumeId, async (uri) => {
    const limits = (writes: number) => new Map([[volumeId, { "iops-write": writes }]]);
    await host.limitVolumes(limits(200));
    expect(await timeOf(uri, 300)).toBeGreaterThan(1200);
    await host.createSnapshot(volumeId, randomUUID());
    await host.extendVolume(volumeId, 24 * MIB);
    expect(await timeOf(uri, 300)).toBeGreaterThan(1200);
    const [found] = await host.exports();
    process.kill(found?.pid ?? 0, "SIGKILL");
    const next = await fixture.reopen();
    expect(await timeOf(uri, 300)).toBeGreaterThan(1200);
    await next.limitVolumes(limits(100_000));
    await next.limitVolumes(new Map([[volumeId, { "bytes-write": 200 * 4096 }]]));
    expect(await timeOf(uri, 300)).toBeGreaterThan(1200);
    await next.limitVolumes(new Map());
  });
});
