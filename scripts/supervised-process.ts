import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, readFileSync, renameSync, statSync } from "node:fs";
import { RingsteadError } from "../common/errors.ts";
import type { BindAddress } from "../common/listeners.ts";
import type { Log } from "../common/log.ts";
import { type Retirement, STANDS_BY, TAKES_OVER } from "../common/succession.ts";
import { sleep } from "../common/worker.ts";
import type { HeldListeners } from "./held-listeners.ts";
import { type ProcessIdentity, startTimeOf } from "../common/process-identity.ts";

/** Back-off between restarts: doubles from the first to the last, begins anew after a long enough life. */
const BACKOFF_FIRST_MS = 200;
const BACKOFF_LAST_MS = 30_000;
const BACKOFF_RESET_MS = 60_000;
/** Recovery of a full device may rebuild its index; longer than this is a hang. */
const READY_LIMIT_MS = 600_000;
/** What a process prints by itself (crash reports) is kept in one file and one older one of about this size. */
const OUTPUT_BYTES = 1024 * 1024;
const REASON_CHARACTERS = 400;
/**
 * What a process gets whose successor serves already. Connections without a request end by themselves before 75 s, as their clients were told
 * (`Keep-Alive: timeout`); a long upload has a quarter of an hour.
 */
const RETIREMENT: Retirement = { idleMs: 80_000, limitMs: 900_000 };
/** Where the successor waits for it: clients wait too, in the queue of the socket that the supervisor holds. */
const RETIREMENT_IN_TURN: Retirement = { idleMs: 1_000, limitMs: 25_000 };
/** Beyond the time that it was given. */
const RETIREMENT_GRACE_MS = 5_000;
/** Restarts in a row leave no more than this; the eldest is killed. */
const RETIRING_LIMIT = 3;
/** The first descriptor behind standard input, output, error and the channel. */
const FIRST_DESCRIPTOR = 4;

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
  /** Addresses whose sockets the supervisor holds for it. */
  readonly listeners: readonly BindAddress[];
  /**
   * How a new process takes over at a restart: `overlapping`: it serves before the old one stops; `in-turn`: what the old one has (locks of
   * devices, a database of one process) it must give back first.
   */
  readonly succession: "overlapping" | "in-turn";
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
  /** Those that it was before a restart, which still serve connections of theirs. */
  readonly retiring?: readonly ProcessIdentity[];
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
  /**
   * A new process in the place of this one, ready when this resolves. Rejects with RingsteadError `not-ready` where it does not serve, or
   * `process-failed` with the new one's words; then the old one serves on, unless it had to make room, when it is started again as one that died.
   */
  restart(): Promise<void>;
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

const childMessage = (message: unknown): { ready: boolean; loaded: boolean; fatal: string | undefined } => {
  if (typeof message !== "object" || message === null) return { ready: false, loaded: false, fatal: undefined };
  return {
    ready: "ready" in message && message.ready === true,
    loaded: "loaded" in message && message.loaded === true,
    fatal: "fatal" in message && typeof message.fatal === "string" ? message.fatal : undefined,
  };
};

/** One running process. */
type Child = {
  readonly process: ChildProcess;
  readonly identity: ProcessIdentity | undefined;
  readonly startedMs: number;
  /** Resolves when its code is loaded; where it does not stand by, never. */
  readonly loaded: Promise<void>;
  readonly ready: Promise<void>;
  /** Why it ended: its own words, and with how. */
  readonly ended: Promise<{ readonly words: string; readonly reason: string }>;
};

const launch = (spec: ProcessSpec, held: HeldListeners, further: Readonly<Record<string, string>>): Child => {
  const outputStart = sizeOf(spec.outputFile) > OUTPUT_BYTES ? 0 : sizeOf(spec.outputFile);
  const output = openOutput(spec.outputFile);
  const { descriptors, environment } = held.handOver(spec.listeners, FIRST_DESCRIPTOR);
  const running = spawn(
    process.execPath,
    ["--disable-warning=ExperimentalWarning", ...spec.nodeFlags, spec.entry, ...spec.arguments],
    {
      // A session of its own: Ctrl-C in the terminal reaches the supervisor alone.
      detached: true,
      stdio: ["ignore", output, output, "ipc", ...descriptors],
      env: { ...process.env, ...spec.environment, ...environment, ...further },
    },
  );
  closeSync(output);
  const startTime = running.pid === undefined ? undefined : startTimeOf(running.pid);
  const loaded = Promise.withResolvers<void>();
  const ready = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<{ words: string; reason: string }>();
  ready.promise.catch(() => {});
  loaded.promise.catch(() => {});
  let fatal: string | undefined;
  const limit = setTimeout(() => {
    fatal = `not ready after ${READY_LIMIT_MS / 1000} s`;
    running.kill("SIGKILL");
  }, READY_LIMIT_MS);
  running.on("message", (message) => {
    const told = childMessage(message);
    if (told.fatal !== undefined) fatal = told.fatal;
    if (told.loaded) loaded.resolve();
    if (!told.ready) return;
    clearTimeout(limit);
    ready.resolve();
  });
  const finish = (how: string): void => {
    clearTimeout(limit);
    const words = fatal ?? lastOutput(spec.outputFile, outputStart);
    const reason = words === "" ? how : `${how}: ${words}`;
    const error = new RingsteadError("process-failed", fatal ?? reason, { process: spec.name });
    ready.reject(error);
    loaded.reject(error);
    ended.resolve({ words: fatal ?? reason, reason });
  };
  running.once("error", (error) => finish(error.message));
  running.once("exit", (code, signal) => finish(signal === null ? `exited with code ${code}` : `killed by ${signal}`));
  return {
    process: running,
    identity: running.pid === undefined || startTime === undefined ? undefined : { pid: running.pid, startTime },
    startedMs: performance.now(),
    loaded: loaded.promise,
    ready: ready.promise,
    ended: ended.promise,
  };
};

const send = (child: Child, message: object): void => {
  if (child.process.connected) child.process.send(message);
};

/** One child of the supervisor: started, watched, restarted with back-off, replaced, stopped. `onChange` is called after every change. */
export const superviseProcess = (
  spec: ProcessSpec,
  log: Log,
  onChange: () => void,
  held: HeldListeners,
): SupervisedProcess => {
  let state: ProcessState = "stopped";
  let since = new Date();
  let child: Child | undefined;
  /** It is to take the child's place. */
  let successor: Child | undefined;
  /** The eldest first. */
  let retiring: Child[] = [];
  let restarts = 0;
  let consecutive = 0;
  /** It is started again whenever it ends: it was ready once, or others of its role were. */
  let isLasting = false;
  let lastExit: ProcessSnapshot["lastExit"];
  const backoff = new AbortController();
  const first = Promise.withResolvers<void>();
  first.promise.catch(() => {});

  const enter = (next: ProcessState): void => {
    state = next;
    since = new Date();
    onChange();
  };

  const isOver = (): boolean => state === "stopping" || state === "stopped";

  const become = (running: Child, next: "starting" | "ready"): void => {
    child = running;
    enter(next);
    running.ready.then(
      () => {
        if (child !== running || state !== "starting") return;
        isLasting = true;
        log.info("process ready", { process: spec.name, pid: running.identity?.pid });
        enter("ready");
        first.resolve();
      },
      () => {},
    );
  };

  const spawnOnce = (): void => {
    const running = launch(spec, held, {});
    become(running, "starting");
    void watch(running);
  };

  const watch = async (running: Child): Promise<void> => {
    const { words, reason } = await running.ended;
    if (child !== running) return;
    child = undefined;
    lastExit = { at: new Date().toISOString(), reason };
    afterExit(words, performance.now() - running.startedMs);
  };

  const afterExit = (reason: string, lifeMs: number): void => {
    if (isOver()) return enter("stopped");
    log.error("process ended", { process: spec.name, reason, lifeMs: Math.round(lifeMs) });
    // Who is to take over anyway does so now.
    if (successor !== undefined) return enter("starting");
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

  /** Ends a process whose place another one has. Resolves once it has ended. */
  const retire = async (old: Child, how: Retirement): Promise<void> => {
    retiring.push(old);
    if (retiring.length > RETIRING_LIMIT) retiring[0]?.process.kill("SIGKILL");
    const timer = setTimeout(() => old.process.kill("SIGKILL"), how.limitMs + RETIREMENT_GRACE_MS);
    // It is in the supervisor's file before it is told: a supervisor that dies leaves nobody behind whom `down` does not know.
    onChange();
    send(old, { retire: how });
    await old.ended;
    clearTimeout(timer);
    retiring = retiring.filter((one) => one !== old);
    log.info("the process before it has ended", { process: spec.name, pid: old.identity?.pid });
    onChange();
  };

  /** The successor failed before it had the place. */
  const giveUp = (): void => {
    successor = undefined;
    if (child === undefined && !isOver()) restartLater(0);
  };

  const promote = (next: Child, as: "starting" | "ready"): Child | undefined => {
    const old = child;
    successor = undefined;
    become(next, as);
    void watch(next);
    return old;
  };

  const assertGoesOn = (next: Child): void => {
    if (!isOver()) return;
    next.process.kill("SIGKILL");
    throw new RingsteadError("not-ready", `${spec.name} is being stopped`);
  };

  const overlap = async (next: Child): Promise<void> => {
    await next.ready;
    assertGoesOn(next);
    const old = promote(next, "ready");
    log.info("process replaced", { process: spec.name, pid: next.identity?.pid, before: old?.identity?.pid });
    if (old !== undefined) void retire(old, RETIREMENT);
  };

  const inTurn = async (next: Child): Promise<void> => {
    await next.loaded;
    assertGoesOn(next);
    const old = promote(next, "starting");
    if (old !== undefined) await retire(old, RETIREMENT_IN_TURN);
    send(next, { go: true });
    await next.ready;
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
    restart: async () => {
      if (state !== "ready" || successor !== undefined) {
        const why = successor === undefined ? `it is ${state}` : "it is being restarted already";
        throw new RingsteadError("not-ready", `${spec.name} cannot be restarted: ${why}`, { process: spec.name });
      }
      const isInTurn = spec.succession === "in-turn";
      const next = launch(spec, held, { [isInTurn ? STANDS_BY : TAKES_OVER]: "1" });
      successor = next;
      try {
        await (isInTurn ? inTurn(next) : overlap(next));
      } catch (thrown) {
        if (successor === next) giveUp();
        throw thrown;
      }
    },
    stop: async (graceMs) => {
      const running = [child, successor, ...retiring].flatMap((one) => one ?? []);
      if (child === undefined && state !== "failed") enter("stopped");
      else if (child !== undefined) enter("stopping");
      backoff.abort();
      for (const one of running) one.process.kill("SIGTERM");
      const timer = setTimeout(() => {
        if (running.length > 0) log.error("process did not end in time and is killed", { process: spec.name, graceMs });
        for (const one of running) one.process.kill("SIGKILL");
      }, graceMs);
      await Promise.all(running.map(({ ended }) => ended));
      clearTimeout(timer);
    },
    kill: () => {
      for (const one of [child, successor, ...retiring]) one?.process.kill("SIGKILL");
    },
    snapshot: () => ({
      role: spec.role,
      name: spec.name,
      processRole: spec.processRole,
      state,
      since: since.toISOString(),
      pid: child?.identity?.pid,
      startTime: child?.identity?.startTime,
      restarts,
      ...(retiring.length === 0 ? {} : { retiring: retiring.flatMap(({ identity }) => identity ?? []) }),
      lastExit,
    }),
    identity: () => child?.identity,
  };
};
