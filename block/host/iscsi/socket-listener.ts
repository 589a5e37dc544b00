import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { identityOf } from "../exports/storage-daemon.ts";
import type { ProcessIdentity } from "../../../common/process-identity.ts";

/** `__SO_ACCEPTCON` of the kernel's unix(7) table: this end listens. */
const LISTENS = 0x10000;

/** Inodes of sockets that listen at the path, also where its file was removed since. */
const listeningInodes = (path: string): ReadonlySet<string> => {
  const found = new Set<string>();
  for (const line of readFileSync("/proc/net/unix", "utf8").split("\n")) {
    // Number: references protocol flags type state inode path; the path is the rest of the line.
    const [, , , flags = "0", , , inode = "", ...words] = line.trim().split(/\s+/);
    if (words.join(" ") === path && (Number.parseInt(flags, 16) & LISTENS) !== 0) found.add(inode);
  }
  return found;
};

const holds = (pid: number, inodes: ReadonlySet<string>): boolean => {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((descriptor) => {
      try {
        const [, inode = ""] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${descriptor}`)) ?? [];
        return inodes.has(inode);
      } catch {
        // Closed meanwhile.
        return false;
      }
    });
  } catch {
    // Gone meanwhile, or another user's.
    return false;
  }
};

/**
 * The process that listens on a Unix socket: what it has open, and not what it says of itself, so that nothing else is taken for it. Undefined where
 * none does. Requires: the path has no runs of blanks.
 */
export const listenerOf = (path: string): ProcessIdentity | undefined => {
  const inodes = listeningInodes(path);
  if (inodes.size === 0) return undefined;
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (Number.isSafeInteger(pid) && pid > 1 && pid !== process.pid && holds(pid, inodes)) return identityOf(pid);
  }
  return undefined;
};
