import type { Clock } from "../../common/clock.ts";
import type { Metrics } from "../../common/metrics.ts";
import type { HandOffFigures, HandOffSender } from "../daemons/hand-off-sender.ts";
import type { Reclaimer, ReclaimFigures } from "../daemons/reclaimer.ts";
import type { RepairFigures, RepairRate, Replicator } from "../daemons/replicator.ts";

/** Different reasons that are remembered of one device. */
const REASONS_LIMIT = 16;

const snakeOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** A device's repair on the metrics page: where `ringstead repair status` and `ringstead status` read it. */
export const showRepair = (metrics: Metrics, device: string, replicator: Replicator): void => {
  const figure = (name: keyof RepairFigures, help: string): void =>
    metrics.gauge(`ringstead_device_${snakeOf(name)}`, help, () => replicator.figures[name], { device });
  const rate = (name: keyof RepairRate, help: string): void =>
    metrics.gauge(`ringstead_device_repair_${snakeOf(name)}`, help, () => replicator.rate()[name] ?? Number.NaN, {
      device,
    });
  figure("partitionsLeft", "Partitions whose replica here is being compared and repaired.");
  figure("joiningPartitions", "Partitions in which the device does not vote before it has caught up.");
  figure("waitingPartitions", "Of those the ones that have everything and wait until forgotten promises bind nobody.");
  figure("entriesLeft", "Entries that the device still has to pull from other replicas, about.");
  figure("repairedEntries", "Entries pulled from other replicas.");
  figure("repairedBytes", "Bytes of them.");
  figure("failures", "Questions to other replicas that failed.");
  rate("entriesPerSecond", "Entries pulled each second, over the last five.");
  rate("bytesPerSecond", "Bytes pulled each second, over the last five.");
  rate("bytesLeft", "Bytes still to be pulled, by what entries had so far.");
  rate("secondsLeft", "When the device will have caught up and vote, at this rate; NaN where that cannot be told.");
};

/** What became of old deletions, on the metrics page. */
export const showReclaim = (metrics: Metrics, device: string, { figures }: Pick<Reclaimer, "figures">): void => {
  const figure = (name: keyof ReclaimFigures, help: string): void =>
    metrics.gauge(`ringstead_device_${snakeOf(name)}`, help, () => figures[name], { device });
  figure("reclaimedEntries", "Deletions that were old enough, and that all replicas had, and are forgotten.");
  figure("unreclaimedEntries", "Deletions that are old enough, and stay since not all replicas confirm them.");
  figure("reclaimRounds", "Rounds over all partitions in which old deletions were looked for.");
};

/** What a device keeps for absent members of other partitions, on the metrics page. */
export const showHandOffs = (metrics: Metrics, device: string, sender: Pick<HandOffSender, "figures">): void => {
  const figure = (name: keyof HandOffFigures, help: string): void =>
    metrics.gauge(`ringstead_device_${snakeOf(name)}`, help, () => sender.figures[name], { device });
  figure("handOffsLeft", "Objects and rows that the device keeps for replicas that were away, under policy available.");
  figure("handOffsSent", "Those that all replicas have by now, and that are gone here, since the start.");
  figure("handOffFailures", "Times that a replica did not take one.");
};

/** What shows on the metrics page why something could not be pulled, and when last: to be called with each reason. */
export const noteRepairFailures = (metrics: Metrics, device: string, clock: Clock): ((reason: string) => void) => {
  const lastSeconds = new Map<string, number>();
  return (reason) => {
    const isNew = !lastSeconds.has(reason);
    if (isNew && lastSeconds.size >= REASONS_LIMIT) return;
    lastSeconds.set(reason, Math.floor(clock.nowMs() / 1000));
    if (!isNew) return;
    const help = "When repair last failed for this reason, in seconds since 1970.";
    metrics.gauge("ringstead_repair_failed_seconds", help, () => lastSeconds.get(reason) ?? 0, { device, reason });
  };
};
