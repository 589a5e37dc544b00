import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { RingsteadError } from "../common/errors.ts";
import { sleep } from "../common/worker.ts";
import type { VolumeExport } from "../block/volume-host.ts";

const run = promisify(execFile);
const COMMAND_TIMEOUT_MS = 60_000;
const DISK_LIMIT_MS = 30_000;
const POLL_MS = 50;
/** A session whose target was away for a moment comes back by itself within that. */
const SESSION_LIMIT_MS = 20_000;
const LOGGED_IN = "LOGGED_IN";
const FOLDERS = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const ENVIRONMENT = { PATH: FOLDERS.join(":"), LC_ALL: "C" };
const TRANSPORT = "/sys/class/iscsi_transport/tcp";
const SESSIONS = "/sys/class/iscsi_session";
/** What Debian's open-iscsi knows of targets, secrets among it; closed to all but root. */
const NODES = "/etc/iscsi/nodes";
const SECRET_LINE = /^node\.session\.auth\.(authmethod|username|password)\s*=/;

type IscsiExport = Extract<VolumeExport, { kind: "iscsi" }>;

const iscsiadm = async (...words: readonly string[]): Promise<void> => {
  try {
    await run("iscsiadm", [...words], { timeout: COMMAND_TIMEOUT_MS, env: ENVIRONMENT });
  } catch (thrown) {
    const said = thrown instanceof Error && "stderr" in thrown ? String(thrown.stderr).trim() : String(thrown);
    throw new RingsteadError("kernel-cannot", `iscsiadm: ${said.split("\n").at(-1) ?? said}`);
  }
};

/** Why this machine's kernel cannot make a disk of an iSCSI target; undefined where it can. */
export const whyNoKernelIscsi = async (): Promise<string | undefined> => {
  if (process.getuid?.() !== 0) return "that takes root";
  if (!FOLDERS.some((folder) => existsSync(join(folder, "iscsiadm"))))
    return "iscsiadm is not installed (Debian: apt-get install open-iscsi)";
  // Where it is a module, nothing has loaded it yet.
  await run("modprobe", ["iscsi_tcp"], { timeout: COMMAND_TIMEOUT_MS, env: ENVIRONMENT }).catch(() => undefined);
  return existsSync(TRANSPORT) ? undefined : "its kernel has no iSCSI initiator (modprobe iscsi_tcp)";
};

const portalOf = ({ host, port }: IscsiExport): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

/** The record that iscsiadm made of a target: a file, or one for each of its interfaces. */
const recordsOf = (targetName: string): readonly string[] => {
  const folder = join(NODES, targetName);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
};

/** Sessions of the kernel with a target. */
const sessionsOf = (targetName: string): readonly string[] => {
  if (!existsSync(SESSIONS)) return [];
  return readdirSync(SESSIONS)
    .map((name) => join(SESSIONS, name))
    .filter((path) => readFileSync(join(path, "targetname"), "utf8").trim() === targetName);
};

const isLoggedIn = (session: string): boolean => readFileSync(join(session, "state"), "utf8").trim() === LOGGED_IN;

/**
 * Ends sessions that do not come back, such as those of an export that was closed under them: the next one has another secret. Resolves with whether
 * there is one that works.
 */
const hasSession = async (targetName: string): Promise<boolean> => {
  const deadline = performance.now() + SESSION_LIMIT_MS;
  for (;;) {
    const sessions = sessionsOf(targetName);
    if (sessions.length === 0 || sessions.some(isLoggedIn)) return sessions.length > 0;
    if (performance.now() > deadline) break;
    await sleep(POLL_MS);
  }
  await iscsiadm("--mode", "node", "--targetname", targetName, "--logout");
  return false;
};

/** The disk with that number of a session's target, such as `sdb`; undefined where the kernel has not found it yet. */
const diskOf = (session: string, diskNumber: number): string | undefined => {
  const device = join(session, "device");
  const target = readdirSync(device).find((name) => name.startsWith("target"));
  if (target === undefined) return undefined;
  const unit = readdirSync(join(device, target)).find((name) => name.endsWith(`:${diskNumber}`));
  const folder = unit === undefined ? undefined : join(device, target, unit, "block");
  return folder !== undefined && existsSync(folder) ? readdirSync(folder)[0] : undefined;
};

/**
 * Makes a disk of a target with the kernel's initiator, such as `/dev/sdb`; where it is one already, sees to it that it has the size that the
 * target has now. Takes some seconds where a session is there whose target has gone. Throws RingsteadError `kernel-cannot`.
 */
export const connectIscsiDisk = async (exported: IscsiExport): Promise<string> => {
  const { targetName, diskNumber } = exported;
  if (!(await hasSession(targetName))) await logIn(exported);
  const deadline = performance.now() + DISK_LIMIT_MS;
  for (;;) {
    const disk = sessionsOf(targetName).flatMap((session) => diskOf(session, diskNumber) ?? [])[0];
    if (disk !== undefined) {
      writeFileSync(join("/sys/block", disk, "device/rescan"), "1");
      return `/dev/${disk}`;
    }
    if (performance.now() > deadline)
      throw new RingsteadError("kernel-cannot", `the kernel finds no disk ${diskNumber} at ${targetName}`);
    await sleep(POLL_MS);
  }
};

/** The secret goes into iscsiadm's own record: on its command line everybody could read it. */
const logIn = async (exported: IscsiExport): Promise<void> => {
  const { targetName, username, secret } = exported;
  const target = ["--mode", "node", "--targetname", targetName, "--portal", portalOf(exported)];
  await iscsiadm(...target, "--op", "new");
  const auth = [
    ["authmethod", "CHAP"],
    ["username", username],
    ["password", secret],
  ] as const;
  const own = auth.map(([name, value]) => `node.session.auth.${name} = ${value}`);
  for (const path of recordsOf(targetName)) {
    const lines = readFileSync(path, "utf8").split("\n");
    const end = lines.indexOf("# END RECORD");
    const others = lines.slice(0, end === -1 ? lines.length : end).filter((line) => !SECRET_LINE.test(line));
    writeFileSync(path, [...others, ...own, "# END RECORD", ""].join("\n"), { mode: 0o600 });
  }
  await iscsiadm(...target, "--login");
};

/** Takes the disks of a target away, and what iscsiadm knows of it. Resolves with whether there was any. */
export const disconnectIscsiDisk = async (targetName: string): Promise<boolean> => {
  const target = ["--mode", "node", "--targetname", targetName];
  const wasThere = sessionsOf(targetName).length > 0;
  if (wasThere) await iscsiadm(...target, "--logout");
  if (recordsOf(targetName).length > 0) await iscsiadm(...target, "--op", "delete");
  return wasThere;
};
