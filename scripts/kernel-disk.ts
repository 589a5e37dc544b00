import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { RingsteadError } from "../common/errors.ts";

const run = promisify(execFile);
const CONNECT_TIMEOUT_MS = 30_000;
const DISK = /^nbd\d+$/;
const FOLDERS = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

const ENVIRONMENT = { PATH: FOLDERS.join(":"), LC_ALL: "C" };

const missing = (what: string): never => {
  throw new RingsteadError(
    "kernel-cannot",
    `this machine cannot make a disk of a volume: ${what}. Programs open it all the same: ringstead volume export`,
  );
};

/**
 * A disk of the kernel's NBD client that nobody uses, such as `/dev/nbd0`. Throws RingsteadError `kernel-cannot` with what is missing: root, the
 * kernel's module, the program. `sys` and `folders`: where to look, for tests.
 */
export const freeKernelDisk = (sys = "/sys", folders: readonly string[] = FOLDERS): string => {
  if (process.getuid?.() !== 0) missing("that takes root");
  const disks = readdirSync(join(sys, "block")).filter((name) => DISK.test(name));
  if (disks.length === 0) missing("its kernel has no NBD client (modprobe nbd)");
  if (!folders.some((folder) => existsSync(join(folder, "nbd-client"))))
    missing("nbd-client is not installed (Debian: apt-get install nbd-client)");
  const free = disks.toSorted().find((name) => !existsSync(join(sys, "block", name, "pid")));
  return free === undefined ? missing("all its NBD disks are taken") : `/dev/${free}`;
};

/**
 * Connects the kernel's client; it stays when this process ends, as a process that has the export's name on its command line. Rejects with what
 * nbd-client says. Through netlink it would leave no process, and nobody to connect again.
 */
export const connectKernelDisk = async (disk: string, socketPath: string, exportName: string): Promise<void> => {
  const words = ["-unix", socketPath, "-N", exportName, "-nonetlink", "-persist", disk];
  await run("nbd-client", words, { timeout: CONNECT_TIMEOUT_MS, env: ENVIRONMENT });
};

const wordsOf = (pid: string): readonly string[] => {
  try {
    return readFileSync(join("/proc", pid, "cmdline"), "utf8").split("\0");
  } catch {
    // It has ended since.
    return [];
  }
};

/** Disks of the kernel's client that have this export, such as `/dev/nbd0`. */
export const kernelDisksOf = (exportName: string, sys = "/sys"): readonly string[] => {
  const disks = readdirSync(join(sys, "block")).filter((name) => DISK.test(name));
  return disks.flatMap((name) => {
    const file = join(sys, "block", name, "pid");
    const isOurs = existsSync(file) && wordsOf(readFileSync(file, "utf8").trim()).includes(exportName);
    return isOurs ? [`/dev/${name}`] : [];
  });
};

/** Takes a disk away; resolves once nobody has it. */
export const disconnectKernelDisk = async (disk: string): Promise<void> => {
  await run("nbd-client", ["-d", disk], { timeout: CONNECT_TIMEOUT_MS, env: ENVIRONMENT });
};
