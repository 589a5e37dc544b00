import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { DeviceEngine } from "../engine/device-engine.ts";
import { DeviceFixture, logFiles, overwrite, put } from "../engine/engine-fixture.ts";
import { Scrubber } from "./scrubber.ts";
import { scrubRecordFile } from "./scrubber-position.ts";

const DAY_MS = 86_400_000;
const silent = { info: () => {}, warn: () => {}, error: () => {}, child: () => silent };
const never = new AbortController().signal;

/** A scrubber of a device, and what it did. */
class ScrubFixture implements AsyncDisposable {
  readonly fixture = new DeviceFixture();
  nowMs = 1_800_000_000_000;
  bytes = 0;
  readonly found: string[] = [];
  /** Called before each piece. */
  beforePiece: () => void = () => {};
  engine!: DeviceEngine;
  scrubber!: Scrubber;

  async open(scrubDays = 7): Promise<this> {
    this.engine = await this.fixture.reopen();
    this.scrubber = new Scrubber({
      device: "d1",
      engine: this.engine,
      store: scrubRecordFile(this.fixture.path),
      scrubDays,
      allow: async (bytes) => {
        this.beforePiece();
        this.bytes += bytes;
      },
      onDamaged: (key, cause) => this.found.push(`${Buffer.from(key).toString()}: ${cause}`),
      clock: { nowMs: () => this.nowMs },
      log: silent,
    });
    return this;
  }

  async fill(count: number): Promise<void> {
    for (let index = 0; index < count; index++)
      await put(this.engine, `o${String(index).padStart(3, "0")}`, `value ${index} `, randomBytes(30_000));
  }

  async run(signal = never): Promise<void> {
    while ((await this.scrubber.work(signal)) === "busy");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fixture[Symbol.asyncDispose]();
  }
}

test("a round comes when its day has come, reads everything once, and the next one comes as many days later", async () => {
  await using scrub = await new ScrubFixture().open();
  await scrub.fill(50);
  await scrub.run();
  expect(scrub.bytes).toBe(0);
  expect(scrub.scrubber.report()).toMatchObject({
    state: "waiting",
    nextMs: scrub.nowMs + 7 * DAY_MS,
    last: undefined,
  });
  // Also of a device that is started again each day.
  scrub.nowMs += 4 * DAY_MS;
  await scrub.open();
  await scrub.run();
  scrub.nowMs += 4 * DAY_MS;
  await scrub.open();
  // At the rate of the schedule; the clock stands still but for this.
  scrub.beforePiece = () => {
    scrub.nowMs += 10_000;
  };
  const startedMs = scrub.nowMs;
  await scrub.run();
  expect(scrub.bytes).toBeGreaterThan(1_500_000);
  const { last, state, nextMs } = scrub.scrubber.report();
  expect(last).toMatchObject({ startedMs, bytes: scrub.bytes, entries: 50, damaged: 0, wrongDigests: 0 });
  expect([state, nextMs]).toEqual(["waiting", startedMs + 7 * DAY_MS]);
  await scrub.run();
  expect(scrub.scrubber.report().last).toEqual(last);
});

test("without a schedule a round comes only when it is asked for, as fast as it may", async () => {
  await using scrub = await new ScrubFixture().open(0);
  await scrub.fill(20);
  scrub.nowMs += 1000 * DAY_MS;
  await scrub.run();
  expect([scrub.bytes, scrub.scrubber.report().state]).toEqual([0, "off"]);
  scrub.scrubber.start();
  expect(scrub.scrubber.report()).toMatchObject({ state: "scrubbing", isDemanded: true });
  await scrub.run();
  expect(scrub.scrubber.report()).toMatchObject({ state: "off", last: { entries: 20, damaged: 0 } });
});

test("a round goes on after a restart where it was, with the damage that it knew of", async () => {
  await using scrub = await new ScrubFixture().open(0);
  await scrub.fill(130);
  await scrub.engine.scrub.settle();
  const files = logFiles(scrub.fixture);
  expect(files.length).toBeGreaterThan(3);
  const first = files[0]?.path ?? "";
  const at = readFileSync(first).indexOf("value 3 ");
  overwrite(first, at, Buffer.from("VALUE"));
  scrub.scrubber.start();
  // The first segment with the damage, and another one; then the process ends.
  for (let step = 0; step < 2; step++) expect(await scrub.scrubber.work(never)).toBe("busy");
  const ended = new AbortController();
  ended.abort();
  expect(await scrub.scrubber.work(ended.signal)).toBe("idle");
  const before = scrub.bytes;
  await scrub.open(0);
  await scrub.run();
  expect(scrub.scrubber.report().last).toMatchObject({ entries: 130, damaged: 1 });
  expect(scrub.found).toEqual(["o003: the scrubber found damage in the log where it lies"]);
  const inLog = scrub.engine.scrub.segments().reduce((sum, { bytes }) => sum + bytes, 0);
  expect(scrub.bytes).toBeLessThanOrEqual(inLog + before / 2);
});

test("a round that is stopped is given up at once, and the next begins at the beginning", async () => {
  await using scrub = await new ScrubFixture().open();
  await scrub.fill(80);
  scrub.scrubber.start();
  await scrub.scrubber.work(never);
  scrub.beforePiece = () => scrub.scrubber.stop();
  await scrub.run();
  scrub.beforePiece = () => {};
  expect(scrub.scrubber.report()).toMatchObject({ state: "waiting", isDemanded: false, last: undefined });
  scrub.bytes = 0;
  scrub.scrubber.start();
  await scrub.run();
  const inLog = scrub.engine.scrub.segments().reduce((sum, { bytes }) => sum + bytes, 0);
  expect(scrub.bytes).toBe(inLog);
});

test("a record that makes no sense is as good as none", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-scrub-"));
  const store = scrubRecordFile(folder);
  const none = { round: undefined, last: undefined, lastStartedMs: 0 };
  expect(await store.load()).toEqual(none);
  for (const text of ["", "{", "[]", '{"format":2,"lastStartedMs":1}', '{"format":1,"lastStartedMs":1,"round":{}}']) {
    writeFileSync(join(folder, "scrub.json"), text);
    expect(await store.load()).toEqual(none);
  }
  const round = { startedMs: 1, isDemanded: true, phase: "log" as const, segment: 2, lastSegment: 9, key: "00ff" };
  const record = {
    round: { ...round, ranges: [[1, 2, 3]] as [number, number, number][], bytes: 5, entries: 0, damaged: 0 },
    last: { startedMs: 1, endedMs: 2, bytes: 3, entries: 4, damaged: 0 },
    lastStartedMs: 7,
  };
  await store.save(record);
  expect(await store.load()).toEqual(record);
  rmSync(folder, { recursive: true });
});

test("a device so small that its schedule would be slower is read at a mebibyte a second", async () => {
  await using scrub = await new ScrubFixture().open(7);
  await scrub.fill(100);
  await scrub.run();
  scrub.nowMs += 8 * DAY_MS;
  const ticking = setInterval(() => {
    scrub.nowMs += 50;
  }, 50);
  const startedMs = scrub.nowMs;
  await scrub.run();
  clearInterval(ticking);
  const tookMs = (scrub.scrubber.report().last?.endedMs ?? 0) - startedMs;
  // A second's worth is free at the beginning, the last piece is not waited for.
  expect(tookMs).toBeGreaterThanOrEqual((scrub.bytes / 1024 ** 2 - 2.1) * 1000);
});
