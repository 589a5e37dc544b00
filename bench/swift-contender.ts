import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../common/worker.ts";
import { type Contender, loginV1, makeContainer, type Session } from "./contender.ts";
import { installPackages, versionOf } from "./debian-packages.ts";
import { freePorts } from "../common/free-ports.ts";
import { stopFamily } from "./stop-family.ts";
import { makeSwiftFolder, type SwiftCommand } from "./swift-folder.ts";

/** What the comparison needs of Debian. */
const SWIFT_PACKAGES = [
  "swift-proxy",
  "swift-account",
  "swift-container",
  "swift-object",
  "memcached",
  "python3-swift",
] as const;
const START_LIMIT_MS = 30_000;
const POLL_MS = 100;
const LOG_TAIL_CHARACTERS = 2000;

/** A session of its own for each: a Swift server that is told to stop signals its whole process group. */
const start = ([program, ...words]: SwiftCommand, log: number): ChildProcess => {
  const child = spawn(program, words, { detached: true, stdio: ["ignore", log, log] });
  // Seen as a server that does not answer, with the log's end.
  child.once("error", () => undefined);
  return child;
};

const waitUntilServing = async (login: () => Promise<Session>, describe: () => string): Promise<void> => {
  const deadlineMs = performance.now() + START_LIMIT_MS;
  for (;;) {
    try {
      await makeContainer(await login(), "ready");
      return;
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw new Error(`Swift does not serve: ${describe()}`, { cause: thrown });
      await sleep(POLL_MS);
    }
  }
};

/** Installs Debian's Swift where it is missing and starts one with its data below `folder`. */
export const startSwift = async (folder: string): Promise<Contender> => {
  installPackages(SWIFT_PACKAGES);
  const key = randomBytes(16).toString("hex");
  const proxy = await freePorts(5);
  const ports = { proxy, memcached: proxy + 1, account: proxy + 2, container: proxy + 3, object: proxy + 4 };
  const home = join(folder, "swift");
  const commands = makeSwiftFolder({ folder: home, key, ports });
  const logFile = join(home, "servers.log");
  const log = openSync(logFile, "a");
  const children = commands.map((command) => start(command, log));
  closeSync(log);
  const stop = async (): Promise<void> => {
    await stopFamily(children.flatMap(({ pid }) => pid ?? []));
    rmSync(home, { recursive: true, force: true });
  };
  const login = (): Promise<Session> => loginV1(`http://127.0.0.1:${proxy}/auth/v1.0`, "admin:admin", key);
  try {
    await waitUntilServing(login, () => readFileSync(logFile, "utf8").slice(-LOG_TAIL_CHARACTERS));
  } catch (thrown) {
    await stop();
    throw thrown;
  }
  return {
    name: "Swift",
    version: versionOf("swift-proxy"),
    login,
    processes: () => children.flatMap(({ pid }) => pid ?? []),
    [Symbol.asyncDispose]: stop,
  };
};
