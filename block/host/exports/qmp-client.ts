import { createConnection, type Socket } from "node:net";
import { RingsteadError } from "../../../common/errors.ts";

/** A daemon answers at once, or after it has written out what it has: some seconds on a slow disk. */
const ANSWER_TIMEOUT_MS = 60_000;
const GREETING_TIMEOUT_MS = 5000;
/** The longest answer lists a chain's nodes; more comes from something that is no daemon of ours. */
const LINE_LIMIT_CHARACTERS = 4 * 1024 * 1024;

type Waiting = { resolve(this: void, value: unknown): void; reject(this: void, error: Error): void };
type Message = {
  readonly QMP?: object;
  readonly event?: string;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
};

const lost = (): RingsteadError => new RingsteadError("daemon-lost", "the connection to the export's daemon broke");

/** QEMU's monitor protocol: lines of JSON, answers in the order of the questions. A monitor has one client at a time. */
export class QmpClient implements Disposable {
  /** Resolves once the connection is over: most often because the daemon is. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #text = "";
  #isOver = false;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#isOver = true;
        for (const { reject } of this.#waiting.splice(0)) reject(lost());
        resolve();
      });
    });
    socket.on("error", () => socket.destroy());
    socket.setEncoding("utf8").on("data", (text: string) => this.#read(text));
  }

  /** Errors: "daemon-lost" where nobody listens, another client has the monitor, or nothing is said within `patienceMs`. */
  static async connected(path: string, patienceMs = GREETING_TIMEOUT_MS): Promise<QmpClient> {
    const socket = await new Promise<Socket>((resolve, reject) => {
      const connecting = createConnection({ path }, () => resolve(connecting));
      connecting.once("error", () => reject(lost()));
    });
    const client = new QmpClient(socket);
    const timer = setTimeout(() => socket.destroy(), patienceMs);
    try {
      await new Promise<unknown>((resolve, reject) => client.#waiting.push({ resolve, reject }));
      await client.ask("qmp_capabilities");
      return client;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Errors: "daemon-refused" with what the daemon says; "daemon-lost": whether it was done is not known. */
  ask(command: string, parameters: object = {}): Promise<unknown> {
    if (this.#isOver) return Promise.reject(lost());
    return new Promise((resolve, reject) => {
      // An answer that never comes would be taken for the next one's: such a monitor is given up.
      const timer = setTimeout(() => this.#socket.destroy(), ANSWER_TIMEOUT_MS);
      this.#waiting.push({
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error instanceof RingsteadError ? error : refused(command, error.message));
        },
      });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: parameters })}\n`);
    });
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #read(text: string): void {
    this.#text += text;
    if (this.#text.length > LINE_LIMIT_CHARACTERS) {
      this.#socket.destroy();
      return;
    }
    const lines = this.#text.split("\n");
    this.#text = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() === "") continue;
      try {
        this.#deliver(JSON.parse(line) as Message);
      } catch {
        this.#socket.destroy();
      }
    }
  }

  #deliver(message: Message): void {
    if (message.event !== undefined) return;
    const waiting = this.#waiting.shift();
    if (message.error === undefined) waiting?.resolve(message.return);
    else waiting?.reject(new Error(message.error.desc));
  }
}

const refused = (command: string, why: string): RingsteadError =>
  new RingsteadError("daemon-refused", `the export's daemon refused ${command}: ${why}`);
