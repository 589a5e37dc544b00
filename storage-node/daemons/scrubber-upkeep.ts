import type { Clock } from "../../common/clock.ts";
import type { Log } from "../../common/log.ts";
import type { Metrics } from "../../common/metrics.ts";
import type { DeviceReplica } from "../device-replica.ts";
import { type HealerParts, type HealFigures, Healer } from "../repair/heal.ts";
import { HealJournal } from "../repair/heal-journal.ts";
import { Scrubber } from "./scrubber.ts";
import { scrubRecordFile } from "./scrubber-position.ts";

/** What keeps the bytes of a device whole. */
export type DeviceUpkeep = {
  readonly scrubber: Scrubber;
  readonly healer: Healer;
  readonly journal: HealJournal;
};

export type UpkeepParts = {
  readonly node: string;
  readonly device: string;
  /** The device's folder. */
  readonly path: string;
  readonly replica: DeviceReplica;
  readonly rings: HealerParts["rings"];
  readonly peerOf: HealerParts["peerOf"];
  readonly scrubDays: number;
  /** Asked before bytes are read from the disk, or from another replica: what clients leave. */
  readonly allow: (bytes: number, signal: AbortSignal) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
};

/** A device's scrubber and healer, shown on the metrics page. */
export const deviceUpkeep = (parts: UpkeepParts): DeviceUpkeep => {
  const { device, path, replica, scrubDays, allow, clock, log, metrics } = parts;
  const journal = new HealJournal(path);
  const healer = new Healer({ ...parts, journal });
  const scrubber = new Scrubber({
    device,
    engine: replica.engine,
    store: scrubRecordFile(path),
    scrubDays,
    allow,
    onDamaged: (key, cause, isSuspect) => healer.found(key, cause, isSuspect),
    clock,
    log,
  });
  const gauge = (name: string, help: string, read: () => number): void =>
    metrics.gauge(`ringstead_device_${name}`, help, read, { device });
  const healed = (name: keyof HealFigures, help: string): void =>
    gauge(
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      help,
      () => healer.figures[name],
    );
  healed("waitingEntries", "Damaged entries that wait for their healing.");
  healed("damagedEntries", "Damaged entries found since the start, by reads or by the scrubber.");
  healed("healedEntries", "Of those the ones that were healed.");
  healed("healedBytes", "Bytes that came from other replicas for it.");
  healed("unhealedEntries", "Damaged entries for which no replica had what is missing when they were last asked.");
  healed("droppedFindings", "Findings of damage that were dropped because too many waited.");
  const seconds = (ms: number | undefined): number => Math.floor((ms ?? 0) / 1000);
  gauge("scrub_last_seconds", "When the device was last read from end to end, in seconds since 1970; 0: never.", () =>
    seconds(scrubber.report().last?.endedMs),
  );
  gauge("scrub_running", "1 while a round reads the device.", () => Number(scrubber.report().state === "scrubbing"));
  gauge("scrub_bytes", "Read by the round under way.", () => scrubber.report().bytes);
  gauge(
    "scrub_total_bytes",
    "What it will read, by the last one and by what the log has.",
    () => scrubber.report().totalBytes,
  );
  gauge("scrub_bytes_per_second", "Read each second, over the last five.", () => scrubber.report().bytesPerSecond);
  gauge(
    "scrub_damaged_entries",
    "Entries that scrubbing found damaged since the start.",
    () => scrubber.damagedEntries,
  );
  return { scrubber, healer, journal };
};
