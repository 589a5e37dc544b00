import fc from "fast-check";
import { expect, it } from "vitest";
import { expiredBackups, nextDueMs, type ScheduledBackup } from "./backup-schedule.ts";

it("the next backup is due later than now, on the beat, and what was missed is not made up for", () => {
  const time = fc.integer({ min: 0, max: 1_000_000 });
  fc.assert(
    fc.property(time, fc.integer({ min: 1, max: 10_000 }), time, (dueMs, everyMs, lateMs) => {
      const nowMs = dueMs + lateMs;
      const next = nextDueMs(dueMs, everyMs, nowMs);
      expect(next).toBeGreaterThan(nowMs);
      expect(next - nowMs).toBeLessThanOrEqual(everyMs);
      expect((next - dueMs) % everyMs).toBe(0);
    }),
  );
});

it("the latest that can be restored from stay, as many as are kept, and nothing that is busy goes", () => {
  const statuses = ["available", "available", "available", "creating", "restoring", "deleting", "error"] as const;
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(...statuses), { maxLength: 30 }),
      fc.integer({ min: 1, max: 8 }),
      (all, keep) => {
        const backups = all.map((status, index): ScheduledBackup => ({ id: String(index), status, takenAtMs: index }));
        const expired = new Set(expiredBackups(backups, keep));
        const usable = backups.filter(({ status }) => status === "available" || status === "restoring");
        for (const { id } of usable.slice(-keep)) expect(expired.has(id)).toBe(false);
        for (const { id, status } of usable.slice(0, -keep)) expect(expired.has(id)).toBe(status === "available");
        for (const { id, status } of backups)
          if (status === "creating" || status === "deleting") expect(expired.has(id)).toBe(false);
        const lastUsable = Number(usable.at(-1)?.id ?? -1);
        for (const { id, status } of backups)
          if (status === "error") expect(expired.has(id)).toBe(Number(id) < lastUsable);
      },
    ),
  );
});
