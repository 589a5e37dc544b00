import { createConnection, type Socket } from "node:net";
import { messageOf, RingsteadError } from "../../../common/errors.ts";
import { UNDER_WAY_LIMIT_MS } from "../filling/patience.ts";

/*
 * What a front is asked on its control socket, which lies in a folder that is root's alone: lines of JSON, one answer to each request, in their order.
 * FORMAT.md.
 */

/** A front answers at once, but for `show` and `measure`, which wait for the volume's daemon. */
const ANSWER_LIMIT_MS = UNDER_WAY_LIMIT_MS;
/** It lets go of the volume, and says so, where what is under way does not end within `UNDER_WAY_LIMIT_MS`. */
const HOLD_LIMIT_MS = UNDER_WAY_LIMIT_MS + 20_000;
const LINE_LIMIT_CHARACTERS = 4096;

/** Fields are checked by hand: a library for it would be most of the memory of a process that there is of each volume. */
export type FrontRequest =
  /** Opens the volume and shows the file, where it does not yet. */
  | {
      readonly do: "show";
      readonly exportName: string;
      readonly isReadOnly: boolean;
      /** What is discarded reads as zeros. */
      readonly discards: boolean;
    }
  /** Whatever comes waits from now on until `letGo`, or until this connection closes. */
  | { readonly do: "hold" }
  | { readonly do: "letGo" }
  /** Waits for the volume's daemon, and says how long the volume is. */
  | { readonly do: "measure" };

export type FrontAnswer = { readonly isShown: boolean; readonly sizeBytes: number; readonly failure?: string };

const fieldsOf = (line: string): Readonly<Record<string, unknown>> => {
  const value: unknown = JSON.parse(line);
  if (typeof value !== "object" || value === null) throw new Error("it is no object");
  return value as Record<string, unknown>;
};

/** Throws where the line is no request. */
export const requestIn = (line: string): FrontRequest => {
  const fields = fieldsOf(line);
  const { do: what, exportName, isReadOnly, discards } = fields;
  if (what === "hold" || what === "letGo" || what === "measure") return { do: what };
  const isShow = what === "show" && typeof isReadOnly === "boolean" && typeof discards === "boolean";
  if (isShow && typeof exportName === "string") return { do: what, exportName, isReadOnly, discards };
  throw new RingsteadError("bad-message", "a front cannot do that");
};

/** Throws where the line is no answer. */
export const answerIn = (line: string): FrontAnswer => {
  const { isShown, sizeBytes, failure } = fieldsOf(line);
  if (typeof isShown !== "boolean" || !Number.isSafeInteger(sizeBytes))
    throw new RingsteadError("bad-message", "a front says something else");
  return { isShown, sizeBytes: Number(sizeBytes), ...(typeof failure === "string" ? { failure } : {}) };
};

type Waiting = { resolve(this: void, answer: FrontAnswer): void; reject(this: void, error: Error): void };

const lost = (why: string): RingsteadError => new RingsteadError("daemon-lost", `the front of a disk ${why}`);

/** The lines in a stream of text. Throws where one is longer than any can be. */
export const linesOf = (socket: Socket, take: (line: string) => void): void => {
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
    const lines = text.split("\n");
    text = lines.pop() ?? "";
    if (text.length > LINE_LIMIT_CHARACTERS) socket.destroy();
    else for (const line of lines) take(line);
  });
};

/** Whoever asks a front. Errors of every call: "daemon-lost", "daemon-refused" with what the front says. */
export class FrontControl {
  /** Resolves once the connection is over: most often because the front is. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        for (const { reject } of this.#waiting.splice(0)) reject(lost("is gone"));
        resolve();
      });
    });
    socket.on("error", () => socket.destroy());
    linesOf(socket, (line) => this.#take(line));
  }

  static connected(path: string): Promise<FrontControl> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path }, () => resolve(new FrontControl(socket)));
      socket.once("error", (error) => reject(lost(`cannot be reached: ${messageOf(error)}`)));
    });
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed;
  }

  async ask(request: FrontRequest): Promise<FrontAnswer> {
    if (this.#socket.destroyed) throw lost("is gone");
    const timer = setTimeout(() => this.#socket.destroy(), request.do === "hold" ? HOLD_LIMIT_MS : ANSWER_LIMIT_MS);
    try {
      const answer = await new Promise<FrontAnswer>((resolve, reject) => {
        this.#waiting.push({ resolve, reject });
        this.#socket.write(`${JSON.stringify(request)}\n`);
      });
      if (answer.failure !== undefined) throw new RingsteadError("daemon-refused", answer.failure);
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(line: string): void {
    try {
      const answer = answerIn(line);
      this.#waiting.shift()?.resolve(answer);
    } catch {
      this.#socket.destroy();
    }
  }
}
