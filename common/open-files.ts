import { readdirSync, readFileSync } from "node:fs";
import { codeOf } from "./errors.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";

const LOOK_EVERY_MS = 1_000;
/** From here on it is said; before that a busy hour is no news. */
const FEW_LEFT_SHARE = 0.9;
/** Back here it is over, so that one connection more or less says nothing again. */
const ENOUGH_LEFT_SHARE = 0.8;

/** Descriptors that the process has open, of which every connection and file is one, and how many it may have. */
export type OpenFiles = { readonly open: number; readonly limit: number };

/**
 * Whether a process has few descriptors left. Nobody else says so: without any the kernel's connections are closed as they come, and what would
 * open a file fails where it stands, as if a disk did.
 *
 *     enough ──open ≥ 0.9 limit──▶ few ──open < 0.8 limit──▶ enough
 */
export type FilesState = "enough" | "few";

/** The state after a look; undefined: there was no descriptor left to look with. */
export const stateAfter = (state: FilesState, files: OpenFiles | undefined): FilesState => {
  if (files === undefined || files.open >= FEW_LEFT_SHARE * files.limit) return "few";
  return files.open < ENOUGH_LEFT_SHARE * files.limit ? "enough" : state;
};

/** Of this process; undefined where it has no descriptor left to look with. */
export const openFiles = (): OpenFiles | undefined => {
  try {
    const limit = readFileSync("/proc/self/limits", "utf8").match(/^Max open files\s+(\d+)/m)?.[1];
    // One of them is the folder that is read.
    const open = readdirSync("/proc/self/fd").length - 1;
    return { open, limit: limit === undefined ? Number.POSITIVE_INFINITY : Number(limit) };
  } catch (thrown) {
    if (codeOf(thrown) === "EMFILE") return undefined;
    throw thrown;
  }
};

/** Looks every second until disposed, tells the log when few are left and when there are enough again, and the figure to the metrics. */
export const watchOpenFiles = (log: Log, metrics: Metrics, look = openFiles): Disposable => {
  let state: FilesState = "enough";
  let open = 0;
  const watch = (): void => {
    const files = look();
    open = files?.open ?? open;
    const next = stateAfter(state, files);
    if (next === state) return;
    state = next;
    if (state === "enough") log.info("there are enough descriptors again", { ...files });
    else
      log.warn("few descriptors are left: new connections are closed, and what needs a file is refused", {
        ...files,
        remedy: "raise the limit of open files (ulimit -n, or LimitNOFILE) and restart, or let fewer clients connect",
      });
  };
  watch();
  metrics.gauge("ringstead_open_files", "Descriptors that the process has open.", () => open);
  const timer = setInterval(watch, LOOK_EVERY_MS);
  timer.unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
};
