import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import { sleep } from "../common/worker.ts";
import { type ProcessIdentity, startTimeOf } from "./process-identity.ts";

/** Back-off between restarts: doubles from the first to the last, begins anew after a long enough life. */
const BACKOFF_FIRST_MS = 200;
const BACKOFF_LAST_MS = 30_000;
const BACKOFF_RESET_MS = 60_000;
/** Recovery of a full device may rebuild its index; longer than this is a hang. */
const READY_LIMIT_MS = 600_000;
/** What a process prints by itself (crash reports) is kept in one file and one older one of about this size. */
const OUTPUT_BYTES = 1024 * 1024;
const REASON_CHARACTERS = 400;

export type ProcessSpec = {
  /** A name of `serve`'s list, as ready.json says it. */
  readonly role: string;
  /** Among the processes of its supervisor: the role where that has one process. */
  readonly name: string;
  /** The name of its socket and log. */
  readonly processRole: string;
  /** Absolute path of its main.ts. */
  readonly entry: string;
  readonly arguments: readonly string[];
  readonly nodeFlags: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly outputFile: string;
};

/**
 *     starting ──ready──▶ ready ──exit──▶ waiting ──back-off──▶ starting
 *        │ exit before the first ready                               any ──stop()──▶ stopping ──exit──▶ stopped
 *        ▼
 *     failed ──retry()──▶ waiting
 */
export type ProcessState = "starting" | "ready" | "waiting" | "failed" | "stopping" | "stopped";

/** What `status` tells of a process. */
export type ProcessSnapshot = {
  readonly role: string;
  readonly name: string;
  readonly processRole: string;
  readonly state: ProcessState;
  readonly since: string;
  readonly pid: number | undefined;
  readonly startTime: number | undefined;
  readonly restarts: number;
  /** Why it ended last, in words, and when. */
  readonly lastExit: { readonly at: string; readonly reason: string } | undefined;
};

export type SupervisedProcess = {
  readonly role: string;
  readonly name: string;
  readonly processRole: string;
  /** Starts it; resolves at its first ready. Rejects with RingsteadError `process-failed`, its own words, if it ends before. */
  start(): Promise<void>;
  /** Goes on with one that could not start as with one that died; for where others of its role suffice. */
  retry(): void;
  /** SIGTERM; resolves once it has ended. Those that outlive `graceMs` are killed. */
  stop(graceMs: number): Promise<void>;
  kill(): void;
  snapshot(): ProcessSnapshot;
  identity(): ProcessIdentity | undefined;
};

const openOutput = (file: string): number => {
  try {
    if (statSync(file).size > OUTPUT_BYTES) renameSync(file, `${file}.1`);
  } catch {
    // Nothing printed so far.
  }
  return openSync(file, "a", 0o640);
};

/** The last line of what the process printed since `from`, for a reason in words. */
const lastOutput = (file: string, from: number): string => {
  try {
    const lines = readFileSync(file).subarray(from).toString("utf8").split("\n");
    const telling =
      lines.findLast((line) => /error/i.test(line) && !line.startsWith("    at ")) ?? lines.findLast(Boolean);
    return telling?.trim().slice(0, REASON_CHARACTERS) ?? "";
  } catch {
    return "";
  }
};

const sizeOf = (file: string): number => {
  try {
    return statSync(file).size;
  } catch {
    return 0;
  }
};

const childMessage = (message: unknown): { ready: boolean; fatal: string | undefined } => {
  if (typeof message !== "object" || message === null) return { ready: false, fatal: undefined };
  return {
    ready: "ready" in message && message.ready === true,
    fatal: "fatal" in message && typeof message.fatal === "string" ? message.fatal : undefined,
  };
};

/** One child of the supervisor: started, watched, restarted with back-off, stopped. `onChange` is called after every change. */
export const superviseProcess = (spec: ProcessSpec, log: Log, onChange: () => void): SupervisedProcess => {
  let state: ProcessState = "stopped";
  let since = new Date();
  let child: ChildProcess | undefined;
  let identity: ProcessIdentity | undefined;
  let restarts = 0;
  let consecutive = 0;
  /** It is started again whenever it ends: it was ready once, or others of its role were. */
  let isLasting = false;
  let lastExit: ProcessSnapshot["lastExit"];
  let ended: Promise<void> = Promise.resolve();
  const backoff = new AbortController();
  const first = Promise.withResolvers<void>();
  first.promise.catch(() => {});

  const enter = (next: ProcessState): void => {
    state = next;
    since = new Date();
    onChange();
  };

  const spawnOnce = (): void => {
    const outputStart = sizeOf(spec.outputFile) > OUTPUT_BYTES ? 0 : sizeOf(spec.outputFile);
    const output = openOutput(spec.outputFile);
    const started = performance.now();
    let fatal: string | undefined;
    const running = spawn(
      process.execPath,
      ["--disable-warning=ExperimentalWarning", ...spec.nodeFlags, spec.entry, ...spec.arguments],
      // A session of its own: Ctrl-C in the terminal reaches the supervisor alone.
      { detached: true, stdio: ["ignore", output, output, "ipc"], env: { ...process.env, ...spec.environment } },
    );
    closeSync(output);
    child = running;
    const startTime = running.pid === undefined ? undefined : startTimeOf(running.pid);
    identity = running.pid === undefined || startTime === undefined ? undefined : { pid: running.pid, startTime };
    const limit = setTimeout(() => {
      fatal = `not ready after ${READY_LIMIT_MS / 1000} s`;
      running.kill("SIGKILL");
    }, READY_LIMIT_MS);
    enter("starting");
    running.on("message", (message) => {
      const told = childMessage(message);
      if (told.fatal !== undefined) fatal = told.fatal;
      if (!told.ready) return;
      clearTimeout(limit);
      if (state !== "starting") return;
      isLasting = true;
      log.info("process ready", { process: spec.name, pid: running.pid });
      enter("ready");
      first.resolve();
    });
    const end = Promise.withResolvers<void>();
    ended = end.promise;
    const finish = (how: string): void => {
      clearTimeout(limit);
      if (child !== running) return;
      child = undefined;
      identity = undefined;
      const words = fatal ?? lastOutput(spec.outputFile, outputStart);
      const reason = words === "" ? how : `${how}: ${words}`;
      lastExit = { at: new Date().toISOString(), reason };
      end.resolve();
      afterExit(fatal ?? reason, performance.now() - started);
    };
    running.once("error", (error) => finish(error.message));
    running.once("exit", (code, signal) =>
      finish(signal === null ? `exited with code ${code}` : `killed by ${signal}`),
    );
  };

  const afterExit = (reason: string, lifeMs: number): void => {
    if (state === "stopping" || state === "stopped") return enter("stopped");
    log.error("process ended", { process: spec.name, reason, lifeMs: Math.round(lifeMs) });
    if (isLasting) return restartLater(lifeMs);
    enter("failed");
    first.reject(new RingsteadError("process-failed", reason, { process: spec.name }));
  };

  const restartLater = (lifeMs: number): void => {
    consecutive = lifeMs > BACKOFF_RESET_MS ? 1 : consecutive + 1;
    const waitMs = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** (consecutive - 1));
    enter("waiting");
    void sleep(waitMs, backoff.signal).then(() => {
      if (state !== "waiting") return;
      restarts += 1;
      log.warn("process restarts", { process: spec.name, restarts, waitedMs: waitMs });
      spawnOnce();
    });
  };

  return {
    role: spec.role,
    name: spec.name,
    processRole: spec.processRole,
    start: () => {
      spawnOnce();
      return first.promise;
    },
    retry: () => {
      if (state !== "failed") return;
      isLasting = true;
      restartLater(0);
    },
    stop: async (graceMs) => {
      const running = child;
      if (running === undefined) {
        if (state !== "failed") enter("stopped");
        backoff.abort();
        return;
      }
      enter("stopping");
      running.kill("SIGTERM");
      const timer = setTimeout(() => {
        log.error("process did not end in time and is killed", { process: spec.name, graceMs });
        running.kill("SIGKILL");
      }, graceMs);
      await ended;
      clearTimeout(timer);
    },
    kill: () => {
      child?.kill("SIGKILL");
    },
    snapshot: () => ({
      role: spec.role,
      name: spec.name,
      processRole: spec.processRole,
      state,
      since: since.toISOString(),
      pid: identity?.pid,
      startTime: identity?.startTime,
      restarts,
      lastExit,
    }),
    identity: () => identity,
  };
};
