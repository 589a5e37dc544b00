import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { sleep } from "../common/worker.ts";
import { installPackages, versionOf } from "./debian-packages.ts";
import { freePorts } from "../common/free-ports.ts";
import { type IdentityContender, issueToken, passwordLogin } from "./identity-contender.ts";
import { makeKeystoneFolder } from "./keystone-folder.ts";
import { stopFamily } from "./stop-family.ts";

/** What the comparison needs of Debian. */
const KEYSTONE_PACKAGES = ["keystone", "uwsgi-plugin-python3", "memcached", "python3-memcache"] as const;
/** Each of its processes loads some thousand Python modules. */
const START_LIMIT_MS = 180_000;
const POLL_MS = 250;
const LOG_TAIL_CHARACTERS = 2000;

const waitUntilServing = async (contender: IdentityContender, describe: () => string): Promise<void> => {
  const deadlineMs = performance.now() + START_LIMIT_MS;
  for (;;) {
    try {
      await issueToken(contender, passwordLogin(contender));
      return;
    } catch (thrown) {
      if (performance.now() > deadlineMs) throw new Error(`Keystone does not serve: ${describe()}`, { cause: thrown });
      await sleep(POLL_MS);
    }
  }
};

/** Installs Debian's Keystone where it is missing and starts one with its data below `folder`. Requires: root. */
export const startKeystone = async (folder: string): Promise<IdentityContender> => {
  installPackages(KEYSTONE_PACKAGES);
  const adminPassword = randomBytes(16).toString("hex");
  const keystone = await freePorts(2);
  const home = join(folder, "keystone");
  const { commands, configuration } = makeKeystoneFolder({
    folder: home,
    adminPassword,
    ports: { keystone, memcached: keystone + 1 },
  });
  const logFile = join(home, "servers.log");
  const log = openSync(logFile, "a");
  const env = { ...process.env, OS_KEYSTONE_CONFIG_FILES: configuration };
  const children = commands.map(([program, ...words]): ChildProcess => {
    const child = spawn(program, words, { detached: true, stdio: ["ignore", log, log], env });
    // Seen as a server that does not answer, with the log's end.
    child.once("error", () => undefined);
    return child;
  });
  closeSync(log);
  const processes = (): number[] => children.flatMap(({ pid }) => pid ?? []);
  const contender: IdentityContender = {
    name: "Keystone",
    version: versionOf("keystone"),
    endpoint: `http://127.0.0.1:${keystone}/v3`,
    admin: { username: "admin", password: adminPassword, project: "admin", domain: "Default" },
    processes,
    [Symbol.asyncDispose]: async () => {
      await stopFamily(processes());
      rmSync(home, { recursive: true, force: true });
    },
  };
  try {
    await waitUntilServing(contender, () => readFileSync(logFile, "utf8").slice(-LOG_TAIL_CHARACTERS));
  } catch (thrown) {
    await contender[Symbol.asyncDispose]();
    throw thrown;
  }
  return contender;
};
