import { statfsSync, statSync } from "node:fs";
import { deviceName } from "../common/config.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { getOverSocket } from "./metrics-page.ts";

/** The series that tells since when and why a device has failed. */
const FAILED_AT = "failed_seconds";

export type DeviceStatus = {
  readonly device: string;
  readonly path: string;
  readonly state: "served" | "catching-up" | "not-served" | "failed" | "full" | "read-only" | "missing" | "stopped";
  /** Of the file system. */
  readonly sizeBytes: number | undefined;
  readonly freeBytes: number | undefined;
  /** What the device itself takes of it; undefined while nothing serves it. */
  readonly usedBytes: number | undefined;
  /** Reads whose bytes were not what was written, and that were answered from another replica. */
  readonly damagedReads: number | undefined;
  /** Why and since when it is failed or read-only, in its storage node's words. */
  readonly failure: { readonly reason: string; readonly at: string } | undefined;
  /** Why it could not pull or vote, the last time that this was so. */
  readonly repairFailure: RepairFailure | undefined;
  /** Number of the file system; devices with the same one share a disk. */
  readonly fileSystem: number | undefined;
  readonly figures: Readonly<Record<string, number>>;
};

/** Figures of each device from a storage node's metrics page, names without their prefix. */
export const deviceFigures = (page: string): Map<string, Record<string, number>> => {
  const figures = new Map<string, Record<string, number>>();
  for (const match of page.matchAll(/^ringstead_device_(\w+)\{[^}]*\bdevice="([^"]+)"[^}]*\} (\S+)$/gm)) {
    const [, name = "", device = "", value = ""] = match;
    // Of a device that could not be opened, too, which has no figures.
    if (name === FAILED_AT) continue;
    const known = figures.get(device) ?? {};
    known[name] = Number(value);
    figures.set(device, known);
  }
  return figures;
};

/** A label as it was before it was written on the page. */
const unescaped = (label: string): string =>
  label.replaceAll(/\\(.)/g, (_, letter: string) => (letter === "n" ? "\n" : letter));

/** Why and since when devices have failed, from a storage node's metrics page. */
export const deviceFailures = (page: string): Map<string, { readonly reason: string; readonly at: string }> => {
  const failures = new Map<string, { readonly reason: string; readonly at: string }>();
  const series = /^ringstead_device_failed_seconds\{.*\bdevice="([^"]+)",reason="(.*)"\} (\d+)$/gm;
  for (const [, device = "", reason = "", seconds = ""] of page.matchAll(series)) {
    failures.set(device, { reason: unescaped(reason), at: new Date(Number(seconds) * 1000).toISOString() });
  }
  return failures;
};

/** Why a device's repair last failed, and when. */
export type RepairFailure = { readonly reason: string; readonly at: string };

/** The last failure of each device's repair, from a storage node's metrics page. */
export const lastRepairFailures = (page: string): Map<string, RepairFailure> => {
  const failures = new Map<string, RepairFailure>();
  const series = /^ringstead_repair_failed_seconds\{.*\bdevice="([^"]+)",reason="(.*)"\} (\d+)$/gm;
  for (const [, device = "", reason = "", seconds = ""] of page.matchAll(series)) {
    const at = new Date(Number(seconds) * 1000).toISOString();
    if (at >= (failures.get(device)?.at ?? "")) failures.set(device, { reason: unescaped(reason), at });
  }
  return failures;
};

/** Those of the storage nodes that run. */
export const repairFailures = async (
  paths: RuntimePaths,
  storageNodes: readonly string[],
): Promise<Map<string, RepairFailure>> => lastRepairFailures(await pagesOf(paths, storageNodes));

/** The metrics pages of storage nodes, one behind the other; of one that does not answer nothing. */
const pagesOf = async (paths: RuntimePaths, storageNodes: readonly string[]): Promise<string> => {
  const asked = storageNodes.map((name) => getOverSocket(paths.socket(`metrics-${name}`), "/metrics").catch(() => ""));
  return (await Promise.all(asked)).join("\n");
};

/** A storage node names its figures as its engine does; one that it does not have is not there. */
const isSet = (figures: Readonly<Record<string, number>>, name: string): boolean => (figures[name] ?? 0) > 0;

export const deviceState = (
  isUp: boolean,
  isPathThere: boolean,
  figures: Readonly<Record<string, number>> | undefined,
): DeviceStatus["state"] => {
  if (!isPathThere) return "missing";
  if (!isUp) return "stopped";
  if (figures === undefined) return "not-served";
  // A read-only device has failed too, for a reason that has a remedy of its own.
  if (isSet(figures, "is_read_only")) return "read-only";
  if (isSet(figures, "is_failed") || isSet(figures, "failed")) return "failed";
  if (isSet(figures, "is_full") || isSet(figures, "full")) return "full";
  return isSet(figures, "joining_partitions") ? "catching-up" : "served";
};

/** What is known of each device, from the file system and from its storage node; `storageNodes`: the names of the sockets of those that run. */
export const devicesOf = async (
  paths: RuntimePaths,
  devices: readonly string[],
  storageNodes: readonly string[],
): Promise<DeviceStatus[]> => {
  const isUp = storageNodes.length > 0;
  const page = await pagesOf(paths, storageNodes);
  const figures = deviceFigures(page);
  const failures = deviceFailures(page);
  const repairs = lastRepairFailures(page);
  return devices.map((path, index) => {
    const device = deviceName(index);
    const found = figures.get(device);
    let disk: { sizeBytes: number; freeBytes: number; fileSystem: number } | undefined;
    try {
      const space = statfsSync(path);
      disk = {
        sizeBytes: space.blocks * space.bsize,
        freeBytes: space.bavail * space.bsize,
        fileSystem: statSync(path).dev,
      };
    } catch {
      disk = undefined;
    }
    return {
      device,
      path,
      state: deviceState(isUp, disk !== undefined, found),
      sizeBytes: disk?.sizeBytes,
      freeBytes: disk?.freeBytes,
      usedBytes: found?.["used_bytes"],
      damagedReads: found?.["damaged_reads"],
      failure: failures.get(device),
      repairFailure: repairs.get(device),
      fileSystem: disk?.fileSystem,
      figures: found ?? {},
    };
  });
};
