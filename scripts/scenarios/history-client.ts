import { createHash } from "node:crypto";
import { Agent, type IncomingMessage, request } from "node:http";
import { type Random, seededRandom } from "../../common/random.ts";
import type { HttpOperation } from "./http-history.ts";

/** What the test asks of this process, which runs where its clients are to be. */
export type ClientOrder =
  | { readonly kind: "ask"; readonly id: number; readonly ask: Ask }
  | { readonly kind: "work"; readonly work: Work }
  | { readonly kind: "rest"; readonly id: number }
  | { readonly kind: "look"; readonly id: number; readonly work: Target };

/** One request, as it stands. */
export type Ask = {
  readonly method: string;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
};

/** What clients deal with. */
export type Target = {
  readonly names: readonly string[];
  /** What all of the names begin with, and no others of the container. */
  readonly prefix: string;
  /** The container, by each door. */
  readonly urls: readonly string[];
  readonly token: string;
};

/** Clients that do one thing after the other with a few names, each by any of the doors, until they are told to rest. */
export type Work = Target & { readonly seed: number; readonly clients: number };

export type Asked = {
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
};

/** What it answers with: of an `ask`; of a `rest` what was done since `work`; of a `look` what was seen. */
export type ClientAnswer =
  | { readonly id: number; readonly asked: Asked }
  | { readonly id: number; readonly history: readonly HttpOperation[] };

const PATIENCE_MS = 8_000;
const THINK_MS = 40;
/** For all of a look, where the store was well before. */
const LOOK_LIMIT_MS = 60_000;
/** Bodies in the log for the most part, of several frames, and of a file of their own. */
const SIZES = [100, 100, 100, 20_000, 20_000, 20_000, 300_000, 1_500_000] as const;
const KINDS: readonly HttpOperation["kind"][] = [
  ...(["put", "put", "put", "put", "put", "put", "create", "create"] as const),
  ...(["delete", "delete", "list", "list", "read", "read", "read", "read", "read", "read"] as const),
];

/** For what is asked seldom. */
const closing = new Agent({ keepAlive: false });

type Answer = { readonly status: number; readonly headers: IncomingMessage["headers"]; readonly body: Buffer };

/** Rejects where no whole answer comes in time. */
const exchange = (
  agent: Agent,
  { method, url, headers, body }: Omit<Ask, "body"> & { readonly body?: Buffer },
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { "content-length": String(body.length) };
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const asked = request(url, { method, agent, signal, headers: { ...headers, ...length } }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
      );
    });
    asked.on("error", reject);
    asked.end(body);
  });

const md5 = (bytes: Buffer): string => createHash("md5").update(bytes).digest("hex");

const pick = <T>(random: Random, from: readonly [T, ...T[]] | readonly T[]): T => {
  const picked = from[random.below(from.length)];
  if (picked === undefined) throw new Error("there is nothing to pick from");
  return picked;
};

const oneBody = (text: string, bytes: number): Buffer => Buffer.alloc(bytes, `${text}|`);

const headerOf = (kind: HttpOperation["kind"]): Record<string, string> =>
  kind === "create" ? { "if-none-match": "*" } : {};

const METHODS = { put: "PUT", create: "PUT", delete: "DELETE", read: "GET", list: "GET" } as const;

/** What a client was told, as the history has it. */
const toldBy = (kind: HttpOperation["kind"], { status, headers, body }: Answer): Partial<HttpOperation> => {
  if (status === 404 || status === 412) return { status };
  if (status >= 400) return { status, complaint: body.toString().slice(0, 200) };
  if (kind === "list") {
    const rows = JSON.parse(body.toString()) as { name: string; hash: string }[];
    return { status, rows: Object.fromEntries(rows.map(({ name, hash }) => [name, hash])) };
  }
  if (kind !== "read") return { status };
  const value = md5(body);
  return headers.etag === value ? { status, value } : { status, value, complaint: `its ETag is ${headers.etag}` };
};

type Step = Pick<HttpOperation, "door" | "kind" | "name"> & {
  readonly agent: Agent | undefined;
  readonly body?: Buffer | undefined;
};

const perform = async (
  { urls, token }: Target,
  { agent = closing, door, kind, name, body }: Step,
): Promise<HttpOperation> => {
  const url = `${urls[door]}${kind === "list" ? `?format=json&prefix=${name}` : `/${name}`}`;
  const headers = { "x-auth-token": token, ...headerOf(kind) };
  const value = body === undefined ? "" : md5(body);
  const start = performance.now();
  const asked = { method: METHODS[kind], url, headers, ...(body === undefined ? {} : { body }) };
  const told = await exchange(agent, asked).then(
    (got) => toldBy(kind, got),
    (error: unknown): Partial<HttpOperation> => ({ complaint: String(error) }),
  );
  return { start, end: performance.now(), kind, name, value, status: undefined, door, ...told };
};

/** Reads each name and the listing by each door, again where it is refused. */
const look = async (target: Target): Promise<HttpOperation[]> => {
  const seen: HttpOperation[] = [];
  const limitMs = performance.now() + LOOK_LIMIT_MS;
  for (const door of target.urls.keys())
    for (const [kind, name] of [
      ["list", target.prefix] as const,
      ...target.names.map((object) => ["read", object] as const),
    ])
      for (let isAnswered = false; !isAnswered; ) {
        const operation = await perform(target, { agent: closing, door, kind, name });
        isAnswered = operation.status !== undefined && operation.status < 500;
        if (isAnswered || performance.now() > limitMs) seen.push(operation);
        if (performance.now() > limitMs) return seen;
      }
  return seen;
};

class Worker {
  readonly history: HttpOperation[] = [];
  readonly #work: Work;
  readonly #running: Promise<void>[];
  #isOver = false;

  constructor(work: Work) {
    this.#work = work;
    this.#running = Array.from({ length: work.clients }, (_, client) => this.#run(client));
  }

  async #run(client: number): Promise<void> {
    const { seed, clients, names, urls, prefix } = this.#work;
    const random = seededRandom(BigInt(seed * clients + client));
    const agents = urls.map(() => new Agent({ keepAlive: true, maxSockets: 1 }));
    for (let turn = 0; !this.#isOver; turn++) {
      const kind = pick(random, KINDS);
      const name = kind === "list" ? prefix : pick(random, names);
      const door = random.below(urls.length);
      const body =
        kind === "put" || kind === "create"
          ? oneBody(`${name} ${seed} ${client} ${turn}`, pick(random, SIZES))
          : undefined;
      this.history.push(await perform(this.#work, { agent: agents[door], door, kind, name, body }));
      await new Promise((resolve) => setTimeout(resolve, random.below(THINK_MS)));
    }
    for (const agent of agents) agent.destroy();
  }

  async rest(): Promise<readonly HttpOperation[]> {
    this.#isOver = true;
    await Promise.all(this.#running);
    return this.history;
  }
}

let worker: Worker | undefined;

const answer = (told: ClientAnswer): void => {
  process.send?.(told);
};

const ask = async (id: number, { body, ...asked }: Ask): Promise<void> => {
  try {
    const got = await exchange(closing, { ...asked, ...(body === undefined ? {} : { body: Buffer.from(body) }) });
    answer({ id, asked: { status: got.status, headers: got.headers, text: got.body.toString() } });
  } catch (thrown) {
    answer({ id, asked: { status: undefined, headers: {}, text: String(thrown) } });
  }
};

process.on("message", (order: ClientOrder) => {
  switch (order.kind) {
    case "ask":
      void ask(order.id, order.ask);
      return;
    case "work":
      worker = new Worker(order.work);
      return;
    case "look":
      void look(order.work).then((history) => answer({ id: order.id, history }));
      return;
    case "rest":
      void worker?.rest().then((history) => answer({ id: order.id, history }));
  }
});
// The test is gone.
process.on("disconnect", () => process.exit());
