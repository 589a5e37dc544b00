import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Ask, Asked, ClientAnswer, ClientOrder, Target, Work } from "./history-client.ts";
import type { HttpOperation } from "./http-history.ts";

type Login = { readonly url: string; readonly user: string; readonly key: string };

/** Clients in a process of their own, so that they may be in another network than the test. */
export class HistoryClients implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (answer: ClientAnswer) => void>();
  /** `http://HOST:PORT` of each proxy. */
  readonly #doors: readonly string[];
  #ids = 0;
  #token = "";
  #account = "";

  /** `prefix`: the words before a command that is to run where the clients are. */
  constructor(prefix: readonly [command: string, ...words: string[]], doors: readonly string[]) {
    this.#doors = doors;
    const [command, ...words] = [...prefix, process.execPath, join(import.meta.dirname, "history-client.ts")];
    this.#process = spawn(command, words, {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
      serialization: "advanced",
    });
    this.#process.on("message", (answer: ClientAnswer) => {
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  #order(order: (id: number) => ClientOrder): Promise<ClientAnswer> {
    const id = this.#ids++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, resolve);
      this.#process.send(order(id), (error) => error !== null && reject(error));
    });
  }

  async #ask(ask: Ask): Promise<Asked> {
    const answer = await this.#order((id) => ({ kind: "ask", id, ask }));
    return "asked" in answer ? answer.asked : { status: undefined, headers: {}, text: "" };
  }

  /** Logs in by v1 auth; all requests then are in that account. */
  async login({ url, user, key }: Login): Promise<void> {
    const headers = { "x-auth-user": user, "x-auth-key": key };
    const asked = await this.#ask({ method: "GET", url, headers });
    if (asked.status !== 200) throw new Error(`a login was answered ${asked.status}: ${asked.text}`);
    this.#token = String(asked.headers["x-auth-token"]);
    this.#account = new URL(String(asked.headers["x-storage-url"])).pathname;
  }

  /** The account's name in paths. */
  get account(): string {
    return this.#account.split("/").at(-1) ?? "";
  }

  /** `path` is behind the account's. */
  request(door: number, method: string, path: string, body?: string): Promise<Asked> {
    const headers = { "x-auth-token": this.#token };
    const url = `${this.#doors[door]}${this.#account}${path}`;
    return this.#ask({ method, url, headers, ...(body === undefined ? {} : { body }) });
  }

  /** From now on so many clients write, read and list `names` in a container, by all doors in turn. */
  work(container: string, { seed, clients, names, prefix }: Omit<Work, "urls" | "token">): void {
    const work = { ...this.#target(container, names, prefix), seed, clients };
    this.#process.send({ kind: "work", work } satisfies ClientOrder);
  }

  /** Reads each of `names`, and their listing, by each door; what is refused is asked again for a while. */
  async look(container: string, names: readonly string[], prefix: string): Promise<readonly HttpOperation[]> {
    const answer = await this.#order((id) => ({ kind: "look", id, work: this.#target(container, names, prefix) }));
    return "history" in answer ? answer.history : [];
  }

  #target(container: string, names: readonly string[], prefix: string): Target {
    const urls = this.#doors.map((door) => `${door}${this.#account}/${container}`);
    return { names, prefix, urls, token: this.#token };
  }

  /** Ends the work, when each client has its last answer; gives what was done. */
  async rest(): Promise<readonly HttpOperation[]> {
    const answer = await this.#order((id) => ({ kind: "rest", id }));
    return "history" in answer ? answer.history : [];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, "exit");
    this.#process.disconnect();
    await ended;
  }
}
