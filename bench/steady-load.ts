import { Agent, request as httpRequest } from "node:http";

const SIZE_BYTES = 4096;
const OBJECTS_PER_CLIENT = 64;

/** Where a load goes. `url` is the account's. */
type Front = { readonly url: string; readonly token: string };

/** A request that was not answered as it should. */
export type SteadyFailure = { readonly front: number; readonly what: string; readonly afterMs: number };

export type SteadyResult = {
  readonly answered: number;
  readonly worstMs: number;
  readonly failures: readonly SteadyFailure[];
  readonly elapsedMs: number;
};

/**
 * Keep-alive clients, each on a connection of its own to the next of several fronts, that PUT an object and GET it back, again and again.
 * Nothing is tried twice: a connection that the server closes between two requests, and a client that notices it too late, count as a failed request.
 */
export class SteadyLoad {
  readonly #fronts: readonly Front[];
  readonly #container: string;
  readonly #clients: Promise<void>[];
  readonly #body = Buffer.alloc(SIZE_BYTES, "steady ");
  readonly #inFlight: number[];
  readonly #left = new Set<number>();
  #isOver = false;
  #answered = 0;
  #worstMs = 0;
  #failures: SteadyFailure[] = [];
  #sinceMs = performance.now();

  constructor(fronts: readonly Front[], container: string, clients: number) {
    this.#fronts = fronts;
    this.#container = container;
    this.#inFlight = fronts.map(() => 0);
    this.#clients = Array.from({ length: clients }, (_, client) => this.#run(client));
  }

  /** What was found since the last reset, and from now on anew. */
  reset(): SteadyResult {
    const nowMs = performance.now();
    const result = {
      answered: this.#answered,
      worstMs: this.#worstMs,
      failures: this.#failures,
      elapsedMs: nowMs - this.#sinceMs,
    };
    this.#answered = 0;
    this.#worstMs = 0;
    this.#failures = [];
    this.#sinceMs = nowMs;
    return result;
  }

  inFlightOf(front: number): number {
    return this.#inFlight[front] ?? 0;
  }

  /** Its clients end after the request that they are at. */
  stopUsing(front: number): void {
    this.#left.add(front);
  }

  async end(): Promise<SteadyResult> {
    this.#isOver = true;
    await Promise.all(this.#clients);
    return this.reset();
  }

  async #run(client: number): Promise<void> {
    const front = client % this.#fronts.length;
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let index = 0; !this.#isOver && !this.#left.has(front); index = (index + 1) % OBJECTS_PER_CLIENT) {
      const name = `/${this.#container}/client${client}-${index}`;
      const isStored = await this.#timed(agent, front, "PUT", name);
      if (isStored && !this.#isOver && !this.#left.has(front)) await this.#timed(agent, front, "GET", name);
    }
    agent.destroy();
  }

  async #timed(agent: Agent, front: number, method: "PUT" | "GET", path: string): Promise<boolean> {
    const startMs = performance.now();
    this.#inFlight[front] = this.inFlightOf(front) + 1;
    const failure = await this.#ask(agent, front, method, path);
    this.#inFlight[front] = this.inFlightOf(front) - 1;
    this.#worstMs = Math.max(this.#worstMs, performance.now() - startMs);
    if (failure === undefined) this.#answered += 1;
    else this.#failures.push({ front, what: `${method} ${failure}`, afterMs: Math.round(startMs - this.#sinceMs) });
    return failure === undefined;
  }

  /** Why it failed; undefined where it did not. */
  #ask(agent: Agent, front: number, method: "PUT" | "GET", path: string): Promise<string | undefined> {
    const { url, token } = this.#fronts[front] ?? { url: "", token: "" };
    const body = method === "PUT" ? this.#body : undefined;
    const wanted = method === "PUT" ? 201 : 200;
    return new Promise((resolve) => {
      const headers = { "x-auth-token": token, "content-length": body?.length ?? 0 };
      const asked = httpRequest(`${url}${path}`, { method, agent, headers }, (response) => {
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
        });
        response.on("error", (error) => resolve(error.message));
        response.on("end", () => {
          const isRight = response.statusCode === wanted && (method === "PUT" || bytes === SIZE_BYTES);
          resolve(isRight ? undefined : `answered ${response.statusCode} with ${bytes} bytes`);
        });
      });
      asked.on("error", (error) => resolve(error.message));
      asked.end(body);
    });
  }
}
