import { execFile, execFileSync } from "node:child_process";
import { cp, mkdir, readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { CHECKOUT } from "../up-options.ts";

const run = promisify(execFile);

/**
 * The last version that nodes are upgraded from one after the other: its formats on the wire and on disk are understood by today's code, and
 * today's by it. To be set anew with each release; a format that the one before does not know needs a step of its own (`common/rpc/FORMAT.md`, Versions).
 */
export const PREVIOUS_RELEASE = "3a5beea";

/** What is not code. */
const LEFT_OUT: ReadonlySet<string> = new Set([".git", ".ringstead", "node_modules"]);

/** Why the previous release's code cannot be had here; undefined where it can. */
export const whyNoPreviousRelease = (): string | undefined => {
  try {
    execFileSync("git", ["cat-file", "-e", `${PREVIOUS_RELEASE}^{commit}`], { cwd: CHECKOUT, stdio: "pipe" });
    return undefined;
  } catch {
    return `there is no history with the commit ${PREVIOUS_RELEASE} in it`;
  }
};

/** A checkout of the previous release in `folder`, which is made. Its packages are those of this checkout. */
export const unpackPreviousRelease = async (folder: string): Promise<void> => {
  await mkdir(folder);
  const archive = join(folder, "code.tar");
  await run("git", ["archive", "--format=tar", `--output=${archive}`, PREVIOUS_RELEASE], { cwd: CHECKOUT });
  await run("tar", ["--extract", `--file=${archive}`, `--directory=${folder}`]);
  await rm(archive);
  await symlink(join(CHECKOUT, "node_modules"), join(folder, "node_modules"));
};

/** Puts today's code into a checkout, in the place of what is there, as an operator does. */
export const upgradeCheckout = async (folder: string): Promise<void> => {
  for (const name of await readdir(folder)) if (!LEFT_OUT.has(name)) await rm(join(folder, name), { recursive: true });
  for (const name of await readdir(CHECKOUT))
    if (!LEFT_OUT.has(name)) await cp(join(CHECKOUT, name), join(folder, name), { recursive: true });
};
