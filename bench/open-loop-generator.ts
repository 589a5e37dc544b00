import { text } from "node:stream/consumers";
import { type Answer, type AnswerListener, HttpConnection } from "./http-connection.ts";
import { type CheckedExchange, type Progress, type Script, scriptOf } from "./load-scripts.ts";
import type { OpenLoopResult, OpenLoopSpec } from "./open-loop.ts";

/** Connections of each kind of request; more requests than that wait, and their time runs. */
const CONNECTIONS = 128;
const TICK_MS = 1;

/** A connection that is lent to one request after the other. */
class Lane implements AnswerListener {
  readonly #connection: HttpConnection;
  readonly #script: Script;
  readonly #ended: (lane: Lane, reason: string | undefined) => void;
  #exchange: CheckedExchange | undefined;
  dueMs = 0;

  constructor(spec: OpenLoopSpec, script: Script, ended: (lane: Lane, reason: string | undefined) => void) {
    this.#connection = new HttpConnection(spec.host, spec.port, this);
    this.#script = script;
    this.#ended = ended;
  }

  send(dueMs: number): void {
    this.dueMs = dueMs;
    this.#exchange = this.#script();
    if (this.#exchange !== undefined) this.#connection.send(this.#exchange);
  }

  answered(answer: Answer): void {
    const reason = this.#exchange?.wrong(answer);
    this.#ended(this, reason === undefined ? undefined : `${this.#exchange?.line}: ${reason}`);
  }

  failed(reason: Error): void {
    this.#ended(this, `${this.#exchange?.line}: ${reason.message}`);
  }

  close(): void {
    this.#connection.close();
  }
}

/** Requests of one kind at their rate, whether or not earlier ones were answered. */
class Flow {
  readonly #lanes: readonly Lane[];
  readonly #free: Lane[];
  readonly #waiting: number[] = [];
  readonly #everyMs: number;
  readonly latenciesUs: number[] = [];
  failed = 0;
  firstFailure: string | undefined;
  #dueMs: number;

  constructor(spec: OpenLoopSpec, perSecond: number, script: (client: number) => Script, startMs: number) {
    this.#everyMs = 1000 / perSecond;
    this.#dueMs = startMs;
    const ended = (lane: Lane, reason: string | undefined): void => this.#ended(lane, reason);
    this.#lanes = Array.from({ length: CONNECTIONS }, (_, client) => new Lane(spec, script(client), ended));
    this.#free = [...this.#lanes];
  }

  /** Sends what is due. */
  tick(nowMs: number): void {
    for (; this.#dueMs <= nowMs; this.#dueMs += this.#everyMs) this.#waiting.push(this.#dueMs);
    this.#drain();
  }

  /** Requests under way are forgotten. */
  close(): void {
    for (const lane of this.#lanes) lane.close();
  }

  #drain(): void {
    while (this.#waiting.length > 0) {
      const lane = this.#free.pop();
      if (lane === undefined) return;
      lane.send(this.#waiting.shift() ?? 0);
    }
  }

  #ended(lane: Lane, reason: string | undefined): void {
    if (reason === undefined) this.latenciesUs.push(Math.round((performance.now() - lane.dueMs) * 1000));
    else {
      this.failed += 1;
      this.firstFailure ??= reason;
    }
    this.#free.push(lane);
    this.#drain();
  }
}

const run = async (spec: OpenLoopSpec, stopped: Promise<unknown>): Promise<OpenLoopResult> => {
  const startMs = performance.now();
  const progress: Progress = { begun: 0 };
  const puts: Progress = { begun: 0 };
  const { container, prefix, count, sizeBytes } = spec;
  const place = { ...spec, container };
  const work = { kind: "objects", suffix: "", first: 0, count, again: true, sizeBytes } as const;
  const flows = [
    new Flow(
      spec,
      spec.getsPerSecond,
      (client) => scriptOf(place, { ...work, method: "GET", prefix }, progress, client),
      startMs,
    ),
    new Flow(
      spec,
      spec.putsPerSecond,
      (client) => scriptOf(place, { ...work, method: "PUT", prefix: spec.putPrefix }, puts, client),
      startMs,
    ),
  ];
  const timer = setInterval(() => {
    for (const flow of flows) flow.tick(performance.now());
  }, TICK_MS);
  await stopped;
  clearInterval(timer);
  for (const flow of flows) flow.close();
  return {
    latenciesUs: flows.flatMap(({ latenciesUs }) => latenciesUs),
    failed: flows.reduce((sum, { failed }) => sum + failed, 0),
    firstFailure: flows.find(({ firstFailure }) => firstFailure !== undefined)?.firstFailure,
    elapsedMs: performance.now() - startMs,
  };
};

/** A process of its own; see open-loop.ts for its input and output. Ends at SIGTERM. */
const terminated = new Promise((resolve) => void process.once("SIGTERM", resolve));
const spec: OpenLoopSpec = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await run(spec, terminated)));
