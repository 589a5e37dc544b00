import { Agent, request } from "node:http";

/** A request that got no answer below 500. */
export type Failure = {
  readonly client: number;
  readonly what: string;
  readonly afterMs: number;
  readonly why: string;
};

type Target = {
  readonly method: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
};

/** Clients that keep their connection, each with one request at a time, until they are told to stop. Every answer is read to its end. */
export class KeepAliveClients implements AsyncDisposable {
  readonly failures: Failure[] = [];
  answered = 0;
  /** Connections that were opened. */
  connections = 0;
  slowestMs = 0;
  underWay = 0;
  readonly #running: Promise<void>[] = [];
  readonly #agents: Agent[] = [];
  #isOver = false;

  /** Another client: `next` is what it asks, after each answer and `pauseMs` of idleness. */
  add(next: (turn: number) => Target, pauseMs = 0): void {
    // Node's own client heeds `Keep-Alive: timeout` of answers; it must not close first.
    const agent = new Agent({ keepAlive: true, maxSockets: 1, agentKeepAliveTimeoutBuffer: 0 });
    this.#agents.push(agent);
    this.#running.push(this.#run(this.#running.length, agent, next, pauseMs));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
    for (const agent of this.#agents) agent.destroy();
  }

  async #run(client: number, agent: Agent, next: (turn: number) => Target, pauseMs: number): Promise<void> {
    for (let turn = 0; !this.#isOver; turn++) {
      const target = next(turn);
      const started = performance.now();
      this.underWay += 1;
      const why = await this.#ask(agent, target);
      this.underWay -= 1;
      const afterMs = performance.now() - started;
      this.slowestMs = Math.max(this.slowestMs, afterMs);
      if (why === undefined) this.answered += 1;
      else this.failures.push({ client, what: `${target.method} ${target.url}`, afterMs, why });
      if (why !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
      for (let waited = 0; waited < pauseMs && !this.#isOver; waited += 50)
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Why it failed. */
  #ask(agent: Agent, { method, url, headers = {}, body }: Target): Promise<string | undefined> {
    return new Promise((resolve) => {
      const length = body === undefined ? {} : { "content-length": String(body.length) };
      const asked = request(url, { method, agent, headers: { ...headers, ...length } }, (response) => {
        const status = response.statusCode ?? 0;
        response.resume();
        response.on("end", () => resolve(status < 400 ? undefined : `answered ${status}`));
        response.on("error", (error) => resolve(error.message));
      });
      asked.on("socket", (socket) => {
        if (socket.connecting) this.connections += 1;
      });
      asked.on("error", (error) => resolve(error.message));
      asked.end(body);
    });
  }
}
