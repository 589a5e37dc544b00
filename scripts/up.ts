import { spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { LOCAL_NODE } from "../common/config.ts";
import { messageOf } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { makeDataFolder, plannedConfig } from "./data-folder.ts";
import { exitCodeOf } from "./exit-code.ts";
import type { ReadyFile } from "./ready-file.ts";
import { supervise } from "./supervisor.ts";
import { CHECKOUT, parseUpOptions, type UpOptions } from "./up-options.ts";

/** Tells the supervisor that it is the child of `up --detach` and reports over its IPC channel. */
const DETACHED = "RINGSTEAD_DETACHED";

type Report =
  | { readonly kind: "ready"; readonly ready: ReadyFile; readonly addedDevices: number }
  | { readonly kind: "failed"; readonly reason: string; readonly exitCode: number };

const oneLine = (text: string): string => text.replaceAll(/\s*\n\s*/g, " ").trim();

/** What a user reads once everything runs. */
const welcome = (ready: ReadyFile, addedDevices: number, dataDir: string): string => {
  const endpoints = Object.entries(ready.endpoints).map(([name, url]) => `  ${name.padEnd(9)} ${url}`);
  const absent = ready.unavailable.flatMap(({ service }) => (ready.endpoints[service] === undefined ? [service] : []));
  const limited = ready.unavailable.filter(({ service }) => ready.endpoints[service] !== undefined);
  return [
    ...(addedDevices === 0 ? [] : [`${addedDevices} devices were added to the rings.`]),
    `Ringstead ${ready.version} is ready (pid ${ready.pid}, data in ${dataDir}).`,
    ...endpoints,
    ...(absent.length === 0 ? [] : [`  not running: ${absent.join(", ")} (reasons: ./scripts/ringstead status)`]),
    ...limited.map(({ service, reason, remedy }) => `  PROBLEM   ${service}: ${reason}; ${remedy}`),
    `Log in: user admin, password in ${join(dataDir, "ready.json")}; for clients: . ${join(dataDir, "openrc")}`,
    "",
  ].join("\n");
};

const sendReport = (report: Report): Promise<void> =>
  new Promise((resolve) => {
    if (process.send === undefined) return resolve();
    process.send(report, undefined, undefined, () => {
      // The parent exits now; without its channel this process belongs to nobody.
      process.disconnect?.();
      resolve();
    });
  });

/** The child of `up --detach`: runs the supervisor and tells its parent how the start went. */
const runDetached = async (options: UpOptions): Promise<number> => {
  delete process.env[DETACHED];
  let wasReady = false;
  try {
    await supervise(options, LOCAL_NODE, (ready, addedDevices) => {
      wasReady = true;
      void sendReport({ kind: "ready", ready, addedDevices });
    });
    if (!wasReady) await sendReport({ kind: "failed", reason: "stopped while starting", exitCode: 1 });
    return 0;
  } catch (thrown) {
    await sendReport({ kind: "failed", reason: oneLine(messageOf(thrown)), exitCode: exitCodeOf(thrown) });
    return exitCodeOf(thrown);
  }
};

const detach = async (argv: readonly string[], options: UpOptions): Promise<number> => {
  const paths = runtimePaths(options.dataDir);
  makeDataFolder(paths);
  const outputFile = join(paths.logsDir, "supervisor.out");
  const output = openSync(outputFile, "w", 0o640);
  const child = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", join(CHECKOUT, "scripts/ringstead.ts"), "up", ...argv],
    { detached: true, stdio: ["ignore", output, output, "ipc"], env: { ...process.env, [DETACHED]: "1" } },
  );
  closeSync(output);
  const interrupt = (): void => void child.kill("SIGTERM");
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  const report = await new Promise<Report>((resolve) => {
    child.once("message", (message) => resolve(message as Report));
    child.once("error", (error) => resolve({ kind: "failed", reason: error.message, exitCode: 1 }));
    child.once("exit", (code, signal) => {
      const printed = readFileSync(outputFile, "utf8").trimEnd();
      if (printed !== "") process.stderr.write(`${printed}\n`);
      const reason = `the supervisor ended while starting (${signal ?? `code ${code}`})`;
      resolve({ kind: "failed", reason, exitCode: 1 });
    });
  });
  if (report.kind === "failed") {
    process.stderr.write(`${report.reason}\n`);
    return report.exitCode;
  }
  if (child.connected) child.disconnect();
  child.unref();
  process.stdout.write(welcome(report.ready, report.addedDevices, options.dataDir));
  return 0;
};

/** `ringstead up`. Resolves with the exit code; errors of the start are thrown. */
export const up = async (argv: readonly string[]): Promise<number> => {
  const options = parseUpOptions(argv);
  if (process.env[DETACHED] !== undefined) return runDetached(options);
  if (plannedConfig(runtimePaths(options.dataDir), options, LOCAL_NODE).detach || options.detach)
    return detach(argv, options);
  let wasReady = false;
  await supervise(options, LOCAL_NODE, (ready, addedDevices) => {
    wasReady = true;
    process.stdout.write(welcome(ready, addedDevices, options.dataDir));
    process.stdout.write("Ctrl-C stops it.\n");
  });
  return wasReady ? 0 : 1;
};
