import { messageOf } from "../common/errors.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { readRepairSettings } from "../storage-node/repair/repair-settings.ts";
import type { DeviceStatus } from "./device-status.ts";
import { type Finding, problem, warning } from "./finding.ts";
import { catchingUp } from "./repair-progress.ts";

const FREE_SHARE_MIN = 0.05;
const ONE_LESS =
  "what it holds lives on one replica less; reads and writes go on as long as a quorum of the others is there";
const RESTART = "then ./scripts/ringstead down and up";

const stateFindings = ({ device, path, state, failure, figures, repairFailure }: DeviceStatus): Finding[] => {
  const why = failure === undefined ? "" : ` since ${failure.at}: ${failure.reason}`;
  switch (state) {
    case "served":
    case "stopped":
      return [];
    case "catching-up":
      return [
        problem(
          catchingUp(device, path, figures),
          "until it has caught up its partitions live on one replica less, and the loss of another one may stop writes there",
          repairFailure === undefined
            ? "it goes on by itself: see ./scripts/ringstead repair status"
            : `it goes on by itself, unless it says otherwise (${repairFailure.at}): ${repairFailure.reason}`,
        ),
      ];
    case "missing":
      return [problem(`device ${device}: ${path} is not there`, ONE_LESS, `mount it, ${RESTART}`)];
    case "not-served":
      return [
        failure === undefined
          ? problem(
              `device ${device} (${path}) is not served: its process does not run`,
              ONE_LESS,
              "the reason is beside it, or in DIR/logs/storage-node*.log",
            )
          : problem(`device ${device} (${path}) could not be opened${why}`, ONE_LESS, `put that right, ${RESTART}`),
      ];
    case "failed":
      return [
        problem(
          `device ${device} (${path}) had a failed write or sync and takes no more${why}`,
          ONE_LESS,
          "check the disk, then restart it",
        ),
      ];
    case "read-only":
      return [
        problem(
          `device ${device} (${path}) can only be read${why}: the file system went read-only, most often after an error of the disk`,
          ONE_LESS,
          `check it, mount it anew, ${RESTART}`,
        ),
      ];
    case "full":
      return [
        problem(
          `device ${device} (${path}) is full`,
          "what needs space is refused with 507 where two of three replicas are full; deleting goes on",
          "free space or add devices (--devices N)",
        ),
      ];
  }
};

const figureFindings = ({ device, sizeBytes, freeBytes, figures }: DeviceStatus): Finding[] => {
  const findings: Finding[] = [];
  const unhealed = figures["unhealed_entries"] ?? 0;
  if (unhealed > 0)
    findings.push(
      problem(
        `device ${device} has ${unhealed} damaged record${unhealed === 1 ? "" : "s"} for which no other replica gave what is missing`,
        "they live on one replica less, or on none; it is tried again from time to time",
        "start what is down; DIR/logs/storage-node*.log names them, ./scripts/ringstead explain NAME tells more",
      ),
    );
  if (sizeBytes !== undefined && freeBytes !== undefined && freeBytes < sizeBytes * FREE_SHARE_MIN)
    findings.push(
      warning(
        `device ${device} has only ${Math.round(freeBytes / 1024 ** 2)} MiB free`,
        "when it is full it takes nothing that needs space",
        "free space or add devices (--devices N)",
      ),
    );
  const damaged = (figures["damaged_reads"] ?? 0) + (figures["quarantined_ranges"] ?? 0);
  if (damaged > 0)
    findings.push(
      warning(
        `device ${device} found ${damaged} damaged records and set them aside`,
        "they are healed from other replicas; a disk that damages some will damage more",
        "check the disk",
      ),
    );
  return findings;
};

const sharedDisk = (devices: readonly DeviceStatus[], replicas: number, otherNodeCount: number): Finding[] => {
  const fileSystems = new Set(devices.flatMap(({ fileSystem }) => fileSystem ?? []));
  const disks = fileSystems.size + otherNodeCount;
  if (replicas === 1 || fileSystems.size === 0 || disks >= Math.min(replicas, devices.length + otherNodeCount))
    return [];
  return [
    warning(
      `replicas share one disk: ${devices.length} devices lie on ${fileSystems.size} file system${fileSystems.size === 1 ? "" : "s"}`,
      "the loss of that disk may lose data",
      `for data that matters start with --device PATH for each of ${replicas} or more disks`,
    ),
  ];
};

/** Of the devices one by one, then of all together. */
export const deviceFindings = (
  devices: readonly DeviceStatus[],
  replicas: number,
  otherNodeCount: number,
): readonly Finding[] => [
  ...devices.flatMap(stateFindings),
  ...devices.flatMap(figureFindings),
  ...sharedDisk(devices, replicas, otherNodeCount),
];

/** Of what an operator said of repair. */
export const repairFindings = (paths: RuntimePaths): readonly Finding[] => {
  const consequence = "no device catches up with the others, and nothing is scrubbed";
  try {
    if (!readRepairSettings(paths.repairSettings).isPaused) return [];
    return [warning("repair is paused", consequence, "./scripts/ringstead repair resume")];
  } catch (thrown) {
    return [warning(messageOf(thrown), "what was said of repair before holds", `put ${paths.repairSettings} right`)];
  }
};
