import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { mountFile, whyNoLoggedDisk } from "../scenarios/logged-disk.ts";
import { lockDevice } from "./device-lock.ts";
import { codeOfFailure } from "./engine-fixture.ts";
import { devicePaths } from "./paths.ts";

const run = promisify(execFile);
const isRoot = process.getuid?.() === 0;

/** A process that locks the folder, says "locked" or what went wrong, and does `then`. */
const ownerScript = (folder: string, then = "setInterval(() => {}, 1000);"): string => `
  const { lockDevice } = await import(${JSON.stringify(join(import.meta.dirname, "device-lock.ts"))});
  const { devicePaths } = await import(${JSON.stringify(join(import.meta.dirname, "paths.ts"))});
  const { writeSync } = await import("node:fs");
  globalThis.lock = await lockDevice(devicePaths(${JSON.stringify(folder)})).catch((error) => {
    writeSync(1, error.code + "\\n");
    process.exit(0);
  });
  writeSync(1, "locked " + process.pid + "\\n");
  ${then}`;

class LockFolder implements AsyncDisposable {
  readonly path = mkdtempSync(join(tmpdir(), "ringstead-lock-"));
  readonly #children: ChildProcess[] = [];

  /** Runs a command and resolves with its process and the first line it prints. */
  async start(command: string, ...words: string[]): Promise<{ readonly child: ChildProcess; readonly line: string }> {
    const child = spawn(command, words, { stdio: ["ignore", "pipe", "inherit"] });
    this.#children.push(child);
    const [data] = (await once(child.stdout, "data")) as [Buffer];
    return { child, line: data.toString().trim() };
  }

  /** A process of its own that tries to own the folder. */
  owner(then?: string): Promise<{ readonly child: ChildProcess; readonly line: string }> {
    return this.start(process.execPath, "--input-type=module", "-e", ownerScript(this.path, then));
  }

  lock(): Promise<AsyncDisposable> {
    return lockDevice(devicePaths(this.path));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    }
    rmSync(this.path, { recursive: true, force: true });
  }
}

const pidOf = (line: string): number => Number(/^locked (\d+)$/.exec(line)?.[1]);
const stateOf = (pid: number): string | undefined => /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, "latin1"))?.[1];

const threadStates = (pid: number): (string | undefined)[] =>
  readdirSync(`/proc/${pid}/task`).map(
    (thread) => /\) (\S)/.exec(readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1"))?.[1],
  );

test("a device that a living process owns is refused, naming it, and is free again when that lets it go", async () => {
  await using folder = new LockFolder();
  const { child, line } = await folder.owner();
  expect(pidOf(line)).toBe(child.pid);
  await expect(folder.lock()).rejects.toMatchObject({
    code: "device-busy",
    message: `${folder.path} is open already, by process ${child.pid}`,
  });
  child.kill("SIGKILL");
  const own = await folder.lock();
  expect(await codeOfFailure(folder.lock())).toBe("device-busy");
  expect((await folder.owner()).line).toBe("device-busy");
  await own[Symbol.asyncDispose]();
  expect((await folder.owner()).line).toMatch(/^locked \d+$/);
});

test("a start right after the owner was killed is never refused, however often", async () => {
  await using folder = new LockFolder();
  for (let attempt = 0; attempt < 10; attempt++) {
    // The memory makes dying take a while: it is taken down before the files are closed.
    const { child } = await folder.owner("globalThis.memory = Buffer.alloc(1 << 28, 1); setInterval(() => {}, 1000);");
    child.kill("SIGKILL");
    const lock = await folder.lock();
    await lock[Symbol.asyncDispose]();
  }
});

test("an owner that was killed and that nobody reaps does not own for ever", async () => {
  await using folder = new LockFolder();
  // The shell becomes a sleep, which never looks after its child.
  const script = '"$0" --input-type=module -e "$1" & exec sleep 1000';
  const { line } = await folder.start("/bin/sh", "-c", script, process.execPath, ownerScript(folder.path));
  const owner = pidOf(line);
  process.kill(owner, "SIGKILL");
  await expect.poll(() => stateOf(owner), { timeout: 10_000 }).toBe("Z");
  const lock = await folder.lock();
  expect(stateOf(owner)).toBe("Z");
  await lock[Symbol.asyncDispose]();
});

test("words of a killed owner whose pid belongs to somebody else by now are no lock", async () => {
  await using folder = new LockFolder();
  writeFileSync(join(folder.path, "lock"), `${process.pid} 1`);
  const lock = await folder.lock();
  expect(readFileSync(join(folder.path, "lock"), "utf8")).toMatch(new RegExp(`^${process.pid} \\d{2,} *\\n$`));
  await lock[Symbol.asyncDispose]();
});

test.runIf(isRoot)("a process in another container that shares the disk is refused too", async () => {
  await using folder = new LockFolder();
  const lock = await folder.lock();
  const words = [process.execPath, "--input-type=module", "-e", ownerScript(folder.path)];
  expect((await folder.start("unshare", "--net", ...words)).line).toBe("device-busy");
  await lock[Symbol.asyncDispose]();
});

test("a killed owner with a write still in the kernel is waited for, and only that long", async ({ skip }) => {
  const obstacle = whyNoLoggedDisk();
  if (obstacle !== undefined) {
    process.stdout.write(`an owner that hangs in the kernel is not tested: ${obstacle}\n`);
    skip(obstacle);
  }
  await using folder = new LockFolder();
  await using scratch = new LockFolder();
  const image = join(scratch.path, "disk");
  writeFileSync(image, "");
  truncateSync(image, 64 * 1024 * 1024);
  await run("mkfs.ext4", ["-q", image]);
  await using held = new AsyncDisposableStack();
  const mounted = join(scratch.path, "mounted");
  held.use(await mountFile(image, mounted, "unflushed"));
  // A frozen file system keeps a writing thread in the kernel, where SIGKILL does not reach it.
  await run("fsfreeze", ["--freeze", mounted]);
  let isFrozen = true;
  const thaw = async (): Promise<void> => {
    if (isFrozen) await run("fsfreeze", ["--unfreeze", mounted]);
    isFrozen = false;
  };
  held.defer(thaw);
  const file = JSON.stringify(join(mounted, "file"));
  const { child } = await folder.owner(`(await import("node:fs")).writeFile(${file}, "x", () => {});
    setInterval(() => {}, 1000);`);
  const pid = child.pid!;
  await expect.poll(() => threadStates(pid), { timeout: 10_000 }).toContain("D");
  child.kill("SIGKILL");
  let isLocked = false;
  const locking = folder.lock().then((lock) => {
    isLocked = true;
    return lock;
  });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  expect(threadStates(pid)).toContain("D");
  expect(isLocked).toBe(false);
  await thaw();
  await (await locking)[Symbol.asyncDispose]();
});
