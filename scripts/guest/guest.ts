import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RingsteadError } from "../../common/errors.ts";
import { sleep } from "../../common/worker.ts";
import { CHECKOUT } from "../up-options.ts";
import { guestKernel, writeFirstRoot } from "./guest-kernel.ts";

/*
 * A small machine of its own, with the kernel that Debian has for virtual ones, for tests of what this machine's kernel may lack: device-mapper,
 * NBD and iSCSI clients. Its root is this machine's, shown to it by virtiofsd and laid below memory: whatever is installed here is there, and
 * nothing that it does is left here. Software emulation: 5 to 10 s until a command runs, and that 10 to 20 times as slowly.
 */

const EMULATOR = "/usr/bin/qemu-system-x86_64";
const ROOT_DAEMON = "/usr/lib/qemu/virtiofsd";
const MEMORY_MIB = 1280;
/** Sparse disks: the first is the guest's /tmp, the second is free for volume groups. */
const DISK_BYTES = [16 * 1024 ** 3, 2 * 1024 ** 3];
const SOCKET_LIMIT_MS = 10_000;

export type GuestResult = {
  /** Of the command; undefined where the guest ended without one, or was stopped after its time. */
  readonly exitCode: number | undefined;
  /** What the command left in /tmp/report.json. */
  readonly report: string;
};

/** Why no guest can be run here; undefined where one can. */
const whyNoGuest = (): string | undefined => {
  if (process.getuid?.() !== 0) return "only root may show its root to a guest";
  if (process.arch !== "x64") return "the guest is an x86-64 machine";
  const missing = [EMULATOR, ROOT_DAEMON].filter((path) => !existsSync(path));
  return missing.length === 0
    ? undefined
    : `${missing.join(", ")}: not installed (Debian: qemu-system-x86, qemu-system-common)`;
};

const ended = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
};

const end = async (child: ChildProcess): Promise<void> => {
  child.kill("SIGKILL");
  await ended(child);
};

const emulatorWords = (
  run: string,
  socket: string,
  kernel: { readonly image: string; readonly folder: string },
): readonly string[] => {
  const disks = DISK_BYTES.flatMap((_, index) => [
    "-drive",
    `file=${run}/disk${index},if=virtio,format=raw,discard=unmap,cache=unsafe`,
  ]);
  const memory = `memory-backend-memfd,id=memory,size=${MEMORY_MIB}M,share=on`;
  const folders = `ringstead_checkout=${CHECKOUT} ringstead_run=${run} ringstead_kernel=${kernel.folder}`;
  return [
    ["-accel", "tcg", "-cpu", "Nehalem", "-smp", "1", "-machine", "q35", "-nodefaults", "-no-user-config"],
    // Its clock counts what its processor did: on a busy machine the guest is slow, and does not notice, so that no time-out strikes in it.
    ["-icount", "shift=1", "-rtc", "clock=vm"],
    ["-m", `${MEMORY_MIB}M`, "-object", memory, "-numa", "node,memdev=memory", "-display", "none", "-no-reboot"],
    ["-chardev", `socket,id=root,path=${socket}`, "-device", "vhost-user-fs-pci,chardev=root,tag=root"],
    disks,
    ["-serial", "stdio", "-serial", `file:${run}/result`],
    ["-kernel", kernel.image, "-initrd", `${run}/root`],
    ["-append", `console=ttyS0 quiet mitigations=off panic=-1 ${folders}`],
  ].flat();
};

/**
 * Runs `command`, lines of sh, in the checkout in a guest that is started for it, as root and with `set -e`; what it prints goes to standard output.
 * Throws RingsteadError `no-guest` where none can be started.
 */
export const runInGuest = async (command: string, limitMs: number): Promise<GuestResult> => {
  const obstacle = whyNoGuest();
  if (obstacle !== undefined) throw new RingsteadError("no-guest", obstacle);
  // Words of the kernel's command line are not quoted.
  if (/[\s,]/.test(CHECKOUT)) throw new RingsteadError("no-guest", `there is a blank or a comma in ${CHECKOUT}`);
  const cache = join(CHECKOUT, "node_modules/.cache/ringstead-guest");
  const kernel = guestKernel(cache);
  const run = mkdtempSync(join(cache, "run-"));
  // Paths of sockets are short.
  const sockets = mkdtempSync("/tmp/rs-guest-");
  const children: ChildProcess[] = [];
  try {
    writeFileSync(join(run, "command"), command);
    writeFirstRoot(kernel, join(import.meta.dirname, "init"), join(run, "root"));
    for (const [index, bytes] of DISK_BYTES.entries()) {
      writeFileSync(join(run, `disk${index}`), "");
      truncateSync(join(run, `disk${index}`), bytes);
    }
    const socket = join(sockets, "root");
    const shown = ["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"];
    const rootDaemon = spawn(ROOT_DAEMON, [`--socket-path=${socket}`, ...shown], { stdio: "ignore" });
    children.push(rootDaemon);
    const deadline = performance.now() + SOCKET_LIMIT_MS;
    while (!existsSync(socket)) {
      if (rootDaemon.exitCode !== null || performance.now() > deadline)
        throw new RingsteadError("no-guest", "virtiofsd does not start");
      await sleep(20);
    }
    const emulator = spawn(EMULATOR, emulatorWords(run, socket, kernel), { stdio: ["ignore", "inherit", "inherit"] });
    children.unshift(emulator);
    const timer = setTimeout(() => emulator.kill("SIGKILL"), limitMs);
    await ended(emulator);
    clearTimeout(timer);
    return resultOf(readFileSync(join(run, "result"), "utf8"));
  } finally {
    for (const child of children) await end(child);
    for (const folder of [run, sockets]) rmSync(folder, { recursive: true, force: true });
  }
};

/** What the second serial port carried: the report, and at its end a line with the exit code. */
export const resultOf = (text: string): GuestResult => {
  const match = /^([\s\S]*)\nexit (\d+)\s*$/.exec(text.replaceAll("\r\n", "\n"));
  return match === null ? { exitCode: undefined, report: "" } : { exitCode: Number(match[2]), report: match[1] ?? "" };
};
