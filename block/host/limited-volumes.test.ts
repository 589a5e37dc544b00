import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import type { VolumeLimits } from "../core/qos-limits.ts";
import { LimitedVolumes } from "./limited-volumes.ts";
import { LimitRecords } from "./store/limit-records.ts";

test("limits that could not be set are tried with the next call, and hinder those of no other volume", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-limits-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const [first, second] = [randomUUID(), randomUUID()];
  const kept = new Map<string, VolumeLimits>();
  let isAway = true;
  const volumes = new LimitedVolumes(new LimitRecords(join(folder, "limits.json")), (volumeId) => {
    if (isAway && volumeId === first) return Promise.reject(new Error("the daemon is away"));
    kept.set(volumeId, volumes.of(volumeId));
    return Promise.resolve();
  });
  const limits = new Map([first, second].map((id) => [id, { "iops-total": 100 }]));
  await expect(volumes.replace(limits)).rejects.toThrow("the daemon is away");
  expect([...kept.keys()]).toEqual([second]);
  kept.clear();
  await expect(volumes.replace(limits)).rejects.toThrow("the daemon is away");
  expect(kept.size).toBe(0);
  isAway = false;
  await volumes.replace(limits);
  expect([...kept]).toEqual([[first, { "iops-total": 100 }]]);
  kept.clear();
  await volumes.replace(limits);
  expect(kept.size).toBe(0);
});
