import { closeSync, fstatSync, mkdirSync, openSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { type Clock, systemClock } from "./clock.ts";
import { RingsteadError } from "./errors.ts";

/** A rotated file may be this long; with KEPT_FILES of them a process keeps at most 192 MiB of log. */
const ROTATE_BYTES = 32 * 1024 * 1024;
const KEPT_FILES = 5;
/** Lines wait at most this long, or until this much has collected, before one write carries them all. */
const FLUSH_MS = 50;
const FLUSH_CHARACTERS = 64 * 1024;

/** A structured log: one JSON object a line with `time`, `level`, `service`, `message` and the caller's fields. */
export type Log = {
  info(message: string, fields?: object): void;
  warn(message: string, fields?: object): void;
  error(message: string, fields?: object): void;
  /** A log that adds `fields` (a request id, a device) to every line. */
  child(fields: object): Log;
};

export type LogOptions = {
  readonly service: string;
  /** Absolute path; standard error when absent. One process per file: rotation renames it. */
  readonly file?: string;
  readonly clock?: Clock;
  /** Only tests choose another. */
  readonly rotateBytes?: number;
};

type Sink = { write(this: void, line: string): void };

const errorSink: Sink = {
  write: (line) => {
    process.stderr.write(line);
  },
};

/** Writes collected lines synchronously: a write into the page cache costs less than the promise that would watch it. */
const fileSink = (file: string, rotateBytes: number): Sink => {
  mkdirSync(dirname(file), { recursive: true });
  let descriptor = openSync(file, "a", 0o640);
  let sizeBytes = fstatSync(descriptor).size;
  let pending: string[] = [];
  let pendingCharacters = 0;
  let lost = 0;
  let timer: NodeJS.Timeout | undefined;

  const rotate = (): void => {
    closeSync(descriptor);
    for (let index = KEPT_FILES - 1; index >= 1; index -= 1) {
      try {
        renameSync(`${file}.${index}`, `${file}.${index + 1}`);
      } catch {
        // Fewer rotated files than we keep: nothing to move at this index.
      }
    }
    renameSync(file, `${file}.1`);
    descriptor = openSync(file, "a", 0o640);
    sizeBytes = 0;
  };

  const flush = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (pending.length === 0) return;
    const lines = pending;
    pending = [];
    pendingCharacters = 0;
    try {
      const bytes = Buffer.from(lines.join(""));
      let written = 0;
      while (written < bytes.length) written += writeSync(descriptor, bytes, written);
      sizeBytes += bytes.length;
      if (sizeBytes >= rotateBytes) rotate();
    } catch {
      // A full disk must not stop the service that could free it; the count is told once writing works again.
      lost += lines.length;
    }
  };

  process.on("exit", flush);
  return {
    write: (line) => {
      if (lost > 0) {
        pending.push(`${JSON.stringify({ level: "warn", message: "log lines were lost", lost })}\n`);
        lost = 0;
      }
      pending.push(line);
      pendingCharacters += line.length;
      if (pendingCharacters >= FLUSH_CHARACTERS) flush();
      else timer ??= setTimeout(flush, FLUSH_MS).unref();
    },
  };
};

const errorFields = (error: Error): object => ({
  name: error.name,
  message: error.message,
  stack: error.stack,
  ...("code" in error ? { code: error.code } : {}),
  ...(error instanceof RingsteadError ? { fields: error.fields } : {}),
});

/** What JSON cannot say is brought into a form that it can. Most fields need nothing, and are not copied. */
const plain = (fields: object): object => {
  let flat: Record<string, unknown> | undefined;
  for (const key in fields) {
    const value: unknown = (fields as Readonly<Record<string, unknown>>)[key];
    if (typeof value !== "bigint" && !(typeof value === "object" && value instanceof Error)) continue;
    flat ??= { ...fields };
    flat[key] = value instanceof Error ? errorFields(value) : value.toString();
  }
  return flat ?? fields;
};

/** `,"a":1,"b":2` of an object; nothing of an empty one. */
const members = (fields: object): string => {
  const text = JSON.stringify(fields);
  return text === "{}" ? "" : `,${text.slice(1, -1)}`;
};

/** The access log writes a line per request: what lines have in common is made once. */
const logOn = (sink: Sink, clock: Clock, base: object): Log => {
  const common = members(base);
  const line = (level: string) => {
    const head = `","level":"${level}"${common},"message":`;
    return (message: string, fields?: object): void => {
      const rest = fields === undefined ? "" : members(plain(fields));
      sink.write(`{"time":"${isoTime(clock.nowMs())}${head}${JSON.stringify(message)}${rest}}\n`);
    };
  };
  return {
    info: line("info"),
    warn: line("warn"),
    error: line("error"),
    child: (fields) => logOn(sink, clock, { ...base, ...plain(fields) }),
  };
};

let lastMs = Number.NaN;
let lastTime = "";

/** ISO 8601; lines of one millisecond share the text. */
const isoTime = (nowMs: number): string => {
  if (nowMs !== lastMs) {
    lastMs = nowMs;
    lastTime = new Date(nowMs).toISOString();
  }
  return lastTime;
};

/** A log of `service`. Lines reach the file within 50 ms and at exit; a SIGKILL may lose that much. */
export const createLog = (options: LogOptions): Log => {
  const sink = options.file === undefined ? errorSink : fileSink(options.file, options.rotateBytes ?? ROTATE_BYTES);
  return logOn(sink, options.clock ?? systemClock, { service: options.service, pid: process.pid });
};

/** A log that drops everything, for tests and for cores that run under simulation. */
export const silentLog: Log = { info: () => {}, warn: () => {}, error: () => {}, child: () => silentLog };
