import { text } from "node:stream/consumers";
import { type Answer, type AnswerListener, HttpConnection } from "./http-connection.ts";
import type { LoadPart, LoadResult, LoadSpec } from "./load.ts";
import { type CheckedExchange, type Progress, type Script, scriptOf } from "./load-scripts.ts";

/** A process of its own, so that the load shares no event loop with what drives the rows. See load.ts for its input and output. */

/** A load whose requests only fail ends at once. */
const FAILURES_MAX = 100;
const PROGRESS_EVERY_MS = 10_000;

/** What the clients of one part of a load count together. */
class Tally {
  readonly progress: Progress = { begun: 0 };
  readonly latenciesUs: number[] = [];
  answered = 0;
  failed = 0;
  firstFailure: string | undefined;
  isOver = false;

  fail(line: string, reason: string): void {
    this.failed += 1;
    this.firstFailure ??= `${line}: ${reason}`;
  }
}

/** One client: a request, and when its answer has come, the next one. */
class Client implements AnswerListener {
  readonly #connection: HttpConnection;
  readonly #script: Script;
  readonly #tally: Tally;
  readonly #deadlineMs: number;
  readonly #ended: () => void;
  #exchange: CheckedExchange | undefined;
  #sentMs = 0;

  constructor(spec: LoadSpec, script: Script, tally: Tally, deadlineMs: number, ended: () => void) {
    this.#connection = new HttpConnection(spec.host, spec.port, this);
    this.#script = script;
    this.#tally = tally;
    this.#deadlineMs = deadlineMs;
    this.#ended = ended;
  }

  next(nowMs: number): void {
    const goesOn = nowMs < this.#deadlineMs && !this.#tally.isOver && this.#tally.failed < FAILURES_MAX;
    this.#exchange = goesOn ? this.#script() : undefined;
    if (this.#exchange === undefined) {
      this.#connection.close();
      this.#ended();
      return;
    }
    this.#sentMs = nowMs;
    this.#connection.send(this.#exchange);
  }

  answered(answer: Answer): void {
    const nowMs = performance.now();
    const exchange = this.#exchange;
    if (exchange === undefined) return;
    this.#tally.answered += 1;
    const reason = exchange.wrong(answer);
    if (reason !== undefined) this.#tally.fail(exchange.line, reason);
    else if (exchange.isTimed) this.#tally.latenciesUs.push(Math.round((nowMs - this.#sentMs) * 1000));
    this.next(nowMs);
  }

  failed(reason: Error): void {
    this.#tally.fail(this.#exchange?.line ?? "", reason.message);
    this.next(performance.now());
  }
}

const runPart = (spec: LoadSpec, part: LoadPart, tally: Tally, startMs: number): Promise<void> =>
  new Promise((resolve) => {
    let running = part.clients;
    const ended = (): void => {
      running -= 1;
      if (running === 0) resolve();
    };
    const place = { ...spec, container: part.container };
    for (let client = 0; client < part.clients; client += 1) {
      const script = scriptOf(place, part.work, tally.progress, client);
      new Client(spec, script, tally, startMs + spec.limitMs, ended).next(performance.now());
    }
  });

const showProgress = (label: string, { work }: LoadPart, tally: Tally): NodeJS.Timeout => {
  const goal = work.kind === "objects" ? ` of ${work.count.toLocaleString("en-US")}` : "";
  let before = 0;
  return setInterval(() => {
    const rate = Math.round(((tally.answered - before) * 1000) / PROGRESS_EVERY_MS);
    before = tally.answered;
    process.stderr.write(`  ${label}: ${before.toLocaleString("en-US")}${goal}, ${rate.toLocaleString("en-US")}/s\n`);
  }, PROGRESS_EVERY_MS);
};

const run = async (spec: LoadSpec): Promise<LoadResult> => {
  const front = new Tally();
  const background = new Tally();
  const timer = spec.progress === undefined ? undefined : showProgress(spec.progress, spec.front, front);
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  const beside = spec.background === undefined ? undefined : runPart(spec, spec.background, background, startMs);
  await runPart(spec, spec.front, front, startMs);
  const elapsedMs = performance.now() - startMs;
  background.isOver = true;
  await beside;
  const cpu = process.cpuUsage(cpuBefore);
  clearInterval(timer);
  return {
    latenciesUs: front.latenciesUs,
    answered: front.answered,
    backgroundAnswered: background.answered,
    elapsedMs,
    begun: front.progress.begun,
    clientCpuMs: (cpu.user + cpu.system) / 1000,
    failed: front.failed + background.failed,
    firstFailure: front.firstFailure ?? background.firstFailure,
  };
};

const spec: LoadSpec = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await run(spec)));
