import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { basename, join } from "node:path";
import { messageOf, RingsteadError } from "../../common/errors.ts";
import { modulesInOrder } from "./modules-in-order.ts";

/** Debian's kernel for virtual machines: small, with device-mapper, NBD and iSCSI as modules. */
const KERNEL = "linux-image-cloud-amd64";
const FOLDER_NAME = /^linux-image-[\w.+-]+$/;
/** What has to be loaded before there is a root. */
const FIRST_MODULES = ["virtio-pci", "virtiofs", "overlay"];

/** A kernel with its modules (`lib/modules`) and a `busybox` that needs no library (`bin/busybox`). */
export type GuestKernel = { readonly folder: string; readonly image: string };

const run = (program: string, words: readonly string[], cwd: string, input?: string): Buffer => {
  try {
    return execFileSync(program, [...words], {
      cwd,
      input,
      maxBuffer: 64 * 1024 * 1024,
      stdio: ["pipe", "pipe", "pipe"],
    });
  } catch (thrown) {
    throw new RingsteadError("no-guest", `the test guest's kernel cannot be made ready: ${messageOf(thrown)}`);
  }
};

const versionOf = (folder: string): string => {
  const [version] = readdirSync(join(folder, "lib/modules"));
  if (version === undefined) throw new RingsteadError("no-guest", `there are no kernel modules in ${folder}`);
  return version;
};

const unpacked = (folder: string): GuestKernel => ({
  folder,
  image: join(folder, "boot", `vmlinuz-${versionOf(folder)}`),
});

/**
 * The kernel that is in `cache`; where none is, Debian's is fetched as a package and unpacked there, not installed. Throws RingsteadError
 * `no-guest`.
 */
export const guestKernel = (cache: string): GuestKernel => {
  mkdirSync(cache, { recursive: true });
  const there = readdirSync(cache).find((name) => FOLDER_NAME.test(name));
  if (there !== undefined) return unpacked(join(cache, there));
  const folder = mkdtempSync(join(cache, "fetching-"));
  try {
    const depends = run("apt-cache", ["depends", KERNEL], folder).toString();
    const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1];
    if (name === undefined || !FOLDER_NAME.test(name))
      throw new RingsteadError("no-guest", `Debian's packages have no ${KERNEL} (run: apt-get update)`);
    run("apt-get", ["download", "-q", name, "busybox-static"], folder);
    for (const file of readdirSync(folder)) run("dpkg-deb", ["--extract", file, "."], folder);
    run("depmod", ["-b", ".", versionOf(folder)], folder);
    // Another run may have been as fast: theirs is as good.
    const place = join(cache, name);
    if (!existsSync(place)) renameSync(folder, place);
    return unpacked(place);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

/** Writes the archive that the kernel begins in: `init`, busybox, and what it takes to see the machine's root. */
export const writeFirstRoot = ({ folder }: GuestKernel, init: string, file: string): void => {
  const root = mkdtempSync(`${file}-`);
  try {
    for (const part of ["bin", "modules"]) mkdirSync(join(root, part));
    copyFileSync(init, join(root, "init"));
    copyFileSync(join(folder, "bin/busybox"), join(root, "bin/busybox"));
    const modules = join(folder, "lib/modules", versionOf(folder));
    const order = modulesInOrder(readFileSync(join(modules, "modules.dep"), "utf8"), FIRST_MODULES);
    for (const [index, path] of order.entries())
      copyFileSync(join(modules, path), join(root, "modules", `${String(index).padStart(3, "0")}-${basename(path)}`));
    const names = [
      "init",
      ...["bin", "modules"].flatMap((part) => [part, ...readdirSync(join(root, part)).map((name) => join(part, name))]),
    ];
    run(join(folder, "bin/busybox"), ["cpio", "-o", "-H", "newc", "-F", file], root, `${names.join("\n")}\n`);
  } finally {
    rmSync(root, { recursive: true });
  }
};
