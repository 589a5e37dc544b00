import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { codeOf, messageOf, RingsteadError } from "../../common/errors.ts";
import { LISTED_LIMIT, type ObjectStore, type StoredObject } from "./object-store.ts";

/** Who may do what in which account. Asked again before it expires, or when it is refused. */
export type StoreAccess = { readonly token: string; readonly projectId: string; readonly expiresInSeconds: number };

export type SwiftOptions = {
  /** `http://HOST:PORT`. */
  readonly endpoint: string;
  /** Whose certificates are trusted beside the usual ones, where the endpoint is https. */
  readonly ca: Buffer | undefined;
  /** Errors: "identity-unavailable". */
  access(this: void): Promise<StoreAccess>;
};

/** A request of a MiB, also on a loaded machine; whoever sweeps counts on it (`daemons/backup-sweeper.ts`). */
export const REQUEST_LIMIT_MS = 15_000;
const CONNECTIONS_LIMIT = 16;
const ATTEMPTS = 3;
const PAUSE_FIRST_MS = 100;
/** A token is taken anew when this little of its life is left. */
const RENEWAL_SECONDS = 120;
const LISTING_LIMIT_BYTES = 4 * 1024 * 1024;
/** What is read of an answer that is not wanted. */
const WORDS_LIMIT_BYTES = 4096;

type Method = "GET" | "PUT" | "HEAD" | "DELETE";
type Answer = { readonly status: number; readonly bytes: Buffer };
type Asked = { readonly method: Method; readonly path: string; readonly body?: Buffer; readonly limitBytes?: number };

const away = (why: string): RingsteadError => new RingsteadError("object-store-away", `the object store ${why}`);
const refused = (why: string): RingsteadError => new RingsteadError("object-store-refused", `the object store ${why}`);

const readBody = async (response: IncomingMessage, limitBytes: number): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > limitBytes) {
      response.destroy();
      throw refused(`answered with more than ${limitBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
};

/** Backups in an account of the object service, over its own API: wherever that is, and whatever it keeps its promises with. */
export class SwiftObjectStore implements ObjectStore, Disposable {
  readonly #options: SwiftOptions;
  readonly #agent: HttpAgent;
  readonly #isSecure: boolean;
  #access: { readonly value: Promise<StoreAccess>; readonly untilMs: number } | undefined;
  /** Those that were seen, or made. */
  readonly #containers = new Set<string>();

  constructor(options: SwiftOptions) {
    this.#options = options;
    this.#isSecure = options.endpoint.startsWith("https:");
    const agent = { keepAlive: true, maxSockets: CONNECTIONS_LIMIT };
    this.#agent = this.#isSecure ? new HttpsAgent(agent) : new HttpAgent(agent);
  }

  async put(container: string, name: string, bytes: Buffer): Promise<void> {
    const asked = { method: "PUT", path: pathOf(container, name), body: bytes } as const;
    if (!this.#containers.has(container)) await this.#makeContainer(container);
    let answer = await this.#ask(asked);
    if (answer.status === 404) {
      await this.#makeContainer(container);
      answer = await this.#ask(asked);
    }
    if (answer.status !== 201) throw refused(`answered a PUT with ${answer.status}`);
  }

  async get(container: string, name: string, limitBytes: number): Promise<Buffer | undefined> {
    const { status, bytes } = await this.#ask({ method: "GET", path: pathOf(container, name), limitBytes });
    if (status === 404) return undefined;
    if (status !== 200) throw refused(`answered a GET with ${status}`);
    return bytes;
  }

  async has(container: string, name: string): Promise<boolean> {
    const { status } = await this.#ask({ method: "HEAD", path: pathOf(container, name) });
    if (status === 404) return false;
    if (status === 200 || status === 204) return true;
    throw refused(`answered a HEAD with ${status}`);
  }

  async remove(container: string, name: string): Promise<void> {
    const { status } = await this.#ask({ method: "DELETE", path: pathOf(container, name) });
    if (status !== 204 && status !== 404) throw refused(`answered a DELETE with ${status}`);
  }

  async list(container: string, prefix: string, marker: string): Promise<readonly StoredObject[]> {
    const query = new URLSearchParams({ format: "json", limit: String(LISTED_LIMIT), prefix, marker });
    const path = `${pathOf(container)}?${query.toString()}`;
    const { status, bytes } = await this.#ask({ method: "GET", path, limitBytes: LISTING_LIMIT_BYTES });
    if (status === 404 || status === 204) return [];
    if (status !== 200) throw refused(`answered a listing with ${status}`);
    return listingOf(bytes);
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async #makeContainer(container: string): Promise<void> {
    const { status } = await this.#ask({ method: "PUT", path: pathOf(container) });
    if (status !== 201 && status !== 202) throw refused(`answered the PUT of a container with ${status}`);
    this.#containers.add(container);
  }

  /** Asks again where that may help, a few times. */
  async #ask(asked: Asked): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      try {
        const { token, projectId } = await this.#accessNow();
        const answer = await this.#once(asked, token, projectId);
        if (answer.status === 401 && attempt < ATTEMPTS) {
          this.#access = undefined;
          continue;
        }
        if (answer.status === 401 || answer.status === 403)
          throw refused(`does not let the block service in (${answer.status})`);
        if (answer.status < 500 && answer.status !== 429) return answer;
        throw away(`answers ${answer.status}: ${answer.bytes.toString("utf8").slice(0, 200).trim()}`);
      } catch (error) {
        if (codeOf(error) !== "object-store-away" || attempt >= ATTEMPTS) throw error;
        await new Promise((resolve) => setTimeout(resolve, PAUSE_FIRST_MS * 4 ** (attempt - 1)));
      }
    }
  }

  #accessNow(): Promise<StoreAccess> {
    if (this.#access !== undefined && performance.now() < this.#access.untilMs) return this.#access.value;
    const value = this.#options.access();
    const access = { value, untilMs: Number.POSITIVE_INFINITY };
    this.#access = access;
    value.then(
      ({ expiresInSeconds }) => {
        const untilMs = performance.now() + Math.max(0, expiresInSeconds - RENEWAL_SECONDS) * 1000;
        if (this.#access === access) this.#access = { value, untilMs };
      },
      () => {
        if (this.#access === access) this.#access = undefined;
      },
    );
    return value;
  }

  #once(
    { method, path, body, limitBytes = WORDS_LIMIT_BYTES }: Asked,
    token: string,
    projectId: string,
  ): Promise<Answer> {
    const url = `${this.#options.endpoint}/v1/AUTH_${projectId}/${path}`;
    const { ca } = this.#options;
    const options = {
      method,
      agent: this.#agent,
      signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
      headers: {
        "x-auth-token": token,
        ...(method === "PUT"
          ? { "content-length": body?.length ?? 0, "content-type": "application/octet-stream" }
          : {}),
      },
      ...(ca === undefined ? {} : { ca }),
    };
    return new Promise((resolve, reject) => {
      const fail = (error: unknown): void =>
        reject(error instanceof RingsteadError ? error : away(`does not answer: ${messageOf(error)}`));
      const outgoing = (this.#isSecure ? httpsRequest : httpRequest)(url, options, (response) => {
        const status = response.statusCode ?? 0;
        const isWanted = status === 200;
        readBody(response, isWanted ? limitBytes : WORDS_LIMIT_BYTES).then((bytes) => resolve({ status, bytes }), fail);
      });
      outgoing.on("error", fail);
      outgoing.end(body);
    });
  }
}

/** Containers and names are of letters, digits, `-` and `/`. */
const pathOf = (container: string, name?: string): string => {
  const path = name === undefined ? container : `${container}/${name}`;
  if (!/^[A-Za-z0-9._/-]+$/.test(path)) throw new Error("this is no name of a backup's object");
  return path;
};

const listingOf = (bytes: Buffer): readonly StoredObject[] => {
  let listed: unknown;
  try {
    listed = JSON.parse(bytes.toString("utf8"));
  } catch {
    throw refused("listed something else than JSON");
  }
  if (!Array.isArray(listed)) throw refused("listed something else than objects");
  return (listed as unknown[]).map((one) => {
    const { name, bytes: sizeBytes, last_modified: modified } = one as Record<string, unknown>;
    // Swift's times are UTC without saying so.
    const modifiedAtMs = typeof modified === "string" ? Date.parse(`${modified}Z`) : Number.NaN;
    if (typeof name !== "string" || typeof sizeBytes !== "number" || Number.isNaN(modifiedAtMs))
      throw refused("listed something else than objects");
    return { name, sizeBytes, modifiedAtMs };
  });
};
