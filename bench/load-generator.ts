import { text } from "node:stream/consumers";
import { messageOf } from "../common/errors.ts";
import { type Answer, HttpConnection, type Request } from "./http-connection.ts";
import { type LoadResult, type LoadSpec, type LoadWork, objectName } from "./load.ts";

/** A process of its own, so that the load shares no event loop with what drives the rows. See load.ts for its input and output. */

const CHUNK_BYTES = 1024 * 1024;
/** A load whose requests only fail ends at once. */
const FAILURES_MAX = 100;
/** A listing may differ by so much from the first one, whose names were counted: times are written with varying digits. */
const LISTING_TOLERANCE = 0.01;

type ObjectWork = Extract<LoadWork, { kind: "objects" }>;
type ListingWork = Extract<LoadWork, { kind: "listing" }>;

const EXPECTED_STATUS = { PUT: 201, GET: 200, HEAD: 200, DELETE: 204 } as const;

class Load {
  readonly #spec: LoadSpec;
  readonly #latenciesUs: number[] = [];
  #answered = 0;
  #begun = 0;
  #failed = 0;
  #firstFailure: string | undefined;
  #deadlineMs = 0;

  constructor(spec: LoadSpec) {
    this.#spec = spec;
  }

  async run(): Promise<LoadResult> {
    const startMs = performance.now();
    this.#deadlineMs = startMs + this.#spec.limitMs;
    const { work } = this.#spec;
    const client = work.kind === "objects" ? () => this.#objects(work) : () => this.#listings(work);
    await Promise.all(Array.from({ length: this.#spec.clients }, client));
    return {
      latenciesUs: this.#latenciesUs,
      answered: this.#answered,
      elapsedMs: performance.now() - startMs,
      begun: this.#begun,
      failed: this.#failed,
      firstFailure: this.#firstFailure,
    };
  }

  get #goesOn(): boolean {
    return performance.now() < this.#deadlineMs && this.#failed < FAILURES_MAX;
  }

  #head(method: string, path: string, more = ""): string {
    const { containerPath, host, port, token } = this.#spec;
    return `${method} ${containerPath}${path} HTTP/1.1\r\nHost: ${host}:${port}\r\nX-Auth-Token: ${token}\r\n${more}\r\n`;
  }

  /** Counts and times one exchange; `wrong` says what is wrong with the answer. Returns the answer when nothing is. */
  async #exchange(
    connection: HttpConnection,
    request: Request,
    timed: boolean,
    wrong: (answer: Answer) => string | undefined,
  ): Promise<void> {
    const startMs = performance.now();
    try {
      const answer = await connection.exchange(request);
      const latencyUs = Math.round((performance.now() - startMs) * 1000);
      this.#answered += 1;
      const failure = wrong(answer);
      if (failure !== undefined) throw new Error(failure);
      if (timed) this.#latenciesUs.push(latencyUs);
    } catch (thrown) {
      this.#failed += 1;
      this.#firstFailure ??= `${request.head.split("\r\n", 1)[0]}: ${messageOf(thrown)}`;
    }
  }

  async #objects(work: ObjectWork): Promise<void> {
    const { method, sizeBytes } = work;
    const connection = new HttpConnection(this.#spec.host, this.#spec.port);
    const chunkBytes = Math.min(sizeBytes, CHUNK_BYTES);
    // Not zeros: a store or a file system could make holes of them.
    const chunk = method === "PUT" ? Buffer.alloc(chunkBytes, "Ringstead bench 0123456789 ") : undefined;
    const more = method === "PUT" ? `Content-Type: application/octet-stream\r\nContent-Length: ${sizeBytes}\r\n` : "";
    const wrong = ({ status, bodyBytes, contentLength }: Answer): string | undefined => {
      if (status !== EXPECTED_STATUS[method]) return `status ${status}`;
      if (method === "GET" && bodyBytes !== sizeBytes) return `${bodyBytes} bytes of ${sizeBytes}`;
      return method === "HEAD" && contentLength !== sizeBytes ? `Content-Length ${contentLength}` : undefined;
    };
    while (this.#goesOn && (work.again || this.#begun < work.count)) {
      const index = work.first + (this.#begun % work.count);
      this.#begun += 1;
      const head = this.#head(method, `/${objectName(work.prefix, index)}`, more);
      const chunkCount = chunk === undefined ? 0 : sizeBytes / chunkBytes;
      await this.#exchange(connection, { method, head, chunk, chunkCount, keepBody: false }, true, wrong);
    }
    connection.close();
  }

  async #listings({ prefix, names }: ListingWork): Promise<void> {
    const connection = new HttpConnection(this.#spec.host, this.#spec.port);
    const query = `?format=json&limit=${names}`;
    let firstBytes: number | undefined;
    const wrong = ({ status, bodyBytes, body }: Answer): string | undefined => {
      if (status !== 200) return `status ${status}`;
      if (firstBytes !== undefined) {
        const difference = Math.abs(bodyBytes - firstBytes);
        return difference > firstBytes * LISTING_TOLERANCE ? `${bodyBytes} bytes, before ${firstBytes}` : undefined;
      }
      const found = body.split('"name"').length - 1;
      firstBytes = bodyBytes;
      return found === names ? undefined : `${found} names of ${names}`;
    };
    while (this.#goesOn) {
      const put = this.#head("PUT", `/${objectName(prefix, this.#begun % names)}`, "Content-Length: 0\r\n");
      this.#begun += 1;
      const change = { method: "PUT", head: put, chunk: undefined, chunkCount: 0, keepBody: false };
      await this.#exchange(connection, change, false, ({ status }) =>
        status === 201 ? undefined : `status ${status}`,
      );
      const head = this.#head("GET", query);
      const listing = { method: "GET", head, chunk: undefined, chunkCount: 0, keepBody: firstBytes === undefined };
      await this.#exchange(connection, listing, true, wrong);
    }
    connection.close();
  }
}

const spec: LoadSpec = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await new Load(spec).run()));
