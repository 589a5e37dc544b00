import { createHash } from "node:crypto";
import * as fs from "node:fs/promises";
import { type Server, createServer } from "node:net";
import { RingsteadError, codeOf } from "../../common/errors.ts";
import type { DevicePaths } from "./paths.ts";

/**
 * Keeps a device folder for this process until disposed. Errors: "device-busy".
 *
 * The lock is a socket in Linux's abstract name space, named after the folder's device and inode: the kernel takes it back when
 * the process dies, so a stale lock cannot be, nor a race in taking one over (rejected: an O_EXCL pid file has both). The name
 * space is the network's; for containers that share a disk the `lock` file's pid and start time are looked at as well.
 */
export const lockDevice = async (paths: DevicePaths): Promise<AsyncDisposable> => {
  const { dev, ino } = await fs.stat(paths.root, { bigint: true });
  const digest = createHash("sha256").update(`${dev}:${ino}`).digest("hex").slice(0, 32);
  const server = await listen(`\0ringstead-device-${digest}`, paths);
  try {
    const owner = await readOwner(paths.lock);
    const own = await ownerText(process.pid);
    if (owner !== undefined && owner !== own && owner === (await ownerText(Number.parseInt(owner, 10)))) {
      throw busy(paths, owner);
    }
    await fs.writeFile(paths.lock, own ?? "", { mode: 0o600 });
  } catch (error) {
    server.close();
    throw error;
  }
  return {
    [Symbol.asyncDispose]: async () => {
      await fs.rm(paths.lock, { force: true });
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
};

const busy = (paths: DevicePaths, owner: string | undefined): RingsteadError => {
  const pid = owner === undefined ? undefined : Number.parseInt(owner, 10);
  return new RingsteadError(
    "device-busy",
    `${paths.root} is open already${pid === undefined ? "" : `, by process ${pid}`}`,
    {
      path: paths.root,
      pid,
    },
  );
};

const listen = (name: string, paths: DevicePaths): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.on("error", (error) => {
      if (codeOf(error) !== "EADDRINUSE") reject(error);
      else readOwner(paths.lock).then((owner) => reject(busy(paths, owner)), reject);
    });
    server.listen(name, () => {
      server.unref();
      resolve(server);
    });
  });

const readOwner = async (path: string): Promise<string | undefined> => {
  try {
    const text = await fs.readFile(path, "utf8");
    return /^\d+ \d+$/.test(text) ? text : undefined;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  }
};

/** "pid startTime" of a process that runs; pids are used again, start times (field 22 of stat, ticks since boot) are not. */
const ownerText = async (pid: number): Promise<string | undefined> => {
  try {
    const stat = await fs.readFile(`/proc/${pid}/stat`, "utf8");
    // The second field, the command's name in parentheses, may itself hold spaces and parentheses.
    const startTime = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
    return startTime === undefined ? undefined : `${pid} ${startTime}`;
  } catch {
    return undefined;
  }
};
