/** How far a device's repair is, from the figures that its storage node shows. */
export type RepairProgress = {
  readonly partitionsLeft: number;
  /** Of them those in which the device does not vote yet. */
  readonly joiningPartitions: number;
  /** Of those the ones that have everything and wait for time to pass. */
  readonly waitingPartitions: number;
  readonly entriesLeft: number;
  readonly bytesLeft: number;
  readonly entriesPerSecond: number;
  readonly bytesPerSecond: number;
  /** Until it has caught up and votes; undefined where that cannot be told. */
  readonly secondsLeft: number | undefined;
  readonly repairedEntries: number;
  readonly repairedBytes: number;
  readonly failures: number;
  /** Objects and rows that it keeps for replicas that are away, and sends on when they are back. */
  readonly handOffsLeft: number;
};

/** Undefined of a device that no storage node serves. */
export const repairProgress = (figures: Readonly<Record<string, number>>): RepairProgress | undefined => {
  if (figures["partitions_left"] === undefined) return undefined;
  const figure = (name: string): number => figures[name] ?? 0;
  const seconds = figures["repair_seconds_left"];
  return {
    partitionsLeft: figure("partitions_left"),
    joiningPartitions: figure("joining_partitions"),
    waitingPartitions: figure("waiting_partitions"),
    entriesLeft: figure("entries_left"),
    bytesLeft: Math.round(figure("repair_bytes_left")),
    entriesPerSecond: Math.round(figure("repair_entries_per_second")),
    bytesPerSecond: Math.round(figure("repair_bytes_per_second")),
    secondsLeft: seconds === undefined || Number.isNaN(seconds) ? undefined : Math.ceil(seconds),
    repairedEntries: figure("repaired_entries"),
    repairedBytes: figure("repaired_bytes"),
    failures: figure("failures"),
    handOffsLeft: figure("hand_offs_left"),
  };
};

const counted = (count: number): string => count.toLocaleString("en-US");

const UNITS = ["bytes", "KB", "MB", "GB", "TB"] as const;

/** Such as "1.5 GB". */
export const sizeText = (bytes: number): string => {
  const power = Math.min(UNITS.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  return `${power === 0 ? Math.round(bytes) : (bytes / 1000 ** power).toFixed(1)} ${UNITS[power] ?? ""}`;
};

const durationText = (seconds: number | undefined): string => {
  if (seconds === undefined) return "time left unknown";
  if (seconds < 120) return `about ${seconds} s left`;
  return seconds < 7200 ? `about ${Math.round(seconds / 60)} min left` : `about ${(seconds / 3600).toFixed(1)} h left`;
};

/** What is being done on a device, in words. */
export const progressText = (progress: RepairProgress): string => {
  const { entriesLeft, bytesLeft, entriesPerSecond, bytesPerSecond, joiningPartitions, secondsLeft } = progress;
  if (joiningPartitions > 0 && joiningPartitions === progress.waitingPartitions)
    return `has everything, and waits until promises that it may have forgotten bind nobody any more; ${durationText(secondsLeft)}`;
  return (
    `${counted(entriesLeft)} entries (about ${sizeText(bytesLeft)}) to pull, ${counted(entriesPerSecond)} entries/s, ` +
    `${sizeText(bytesPerSecond)}/s, ${durationText(secondsLeft)}`
  );
};

/** What is to be said of a device that does not vote everywhere. Requires: its figures are known. */
export const catchingUp = (device: string, path: string, figures: Readonly<Record<string, number>>): string => {
  const progress = repairProgress(figures);
  const joining = counted(figures["joining_partitions"] ?? 0);
  const doing = progress === undefined ? "" : `; it pulls what it lacks from the others: ${progressText(progress)}`;
  return `device ${device} (${path}) is new, was emptied or has lost something, and does not vote yet in ${joining} partitions${doing}`;
};
