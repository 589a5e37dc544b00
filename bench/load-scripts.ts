import type { Answer, Exchange } from "./http-connection.ts";
import {
  type ListingWork,
  type LoadSpec,
  type LoadWork,
  type MixedWork,
  type ObjectWork,
  type PageWork,
  type RequestWork,
  type TurnWork,
} from "./load.ts";
import { MIXED_PATTERN } from "./mixed-pattern.ts";
import { INDEX_PLACE, RequestTemplate } from "./request-template.ts";

/** An exchange with what the answer to it must be. */
export type CheckedExchange = Exchange & {
  readonly line: string;
  readonly isTimed: boolean;
  /** Says what is wrong with the answer, undefined when nothing is. */
  wrong(answer: Answer): string | undefined;
};

/** One client's requests, one after the other; undefined when there are no more. What it returned before may change with it. */
export type Script = () => CheckedExchange | undefined;

/** What all clients of a load count together. */
export type Progress = { begun: number };

/** Bodies up to this size travel in one write with the head. */
const ONE_WRITE_BYTES = 64 * 1024;
const CHUNK_BYTES = 1024 * 1024;
/** A listing may differ by so much from the first one, whose names were counted: times are written with varying digits. */
const LISTING_TOLERANCE = 0.01;
/** Steps through markers so that neighbours in time are far apart; a prime, so that all of them come. */
const MARKER_STEP = 7919;
/** Clients begin so far apart in the pattern of a mixed load. */
const PATTERN_STEP = 37;

const EXPECTED_STATUS = { PUT: 201, GET: 200, HEAD: 200, DELETE: 204 } as const;
type Method = keyof typeof EXPECTED_STATUS;

type Place = Pick<LoadSpec, "host" | "port" | "token" | "accountPath"> & { readonly container: string };

// Not zeros: a store or a file system could make holes of them.
const contentOf = (sizeBytes: number): Buffer => Buffer.alloc(sizeBytes, "Ringstead bench 0123456789 ");

/** Large bodies are the same bytes again and again, for all clients. */
const chunkOf = contentOf(CHUNK_BYTES);

type Outgoing = Pick<CheckedExchange, "bytes" | "chunk" | "chunkCount" | "bringsBody" | "line">;

const headText = ({ host, port }: Place, line: string, headers: Readonly<Record<string, string>>): string => {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${line} HTTP/1.1\r\nHost: ${host}:${port}\r\n${lines.join("")}\r\n`;
};

/** `path` begins after the container and may have INDEX_PLACE in it. Requires: sizes above ONE_WRITE_BYTES are whole chunks. */
const outgoing = (
  place: Place,
  method: Method,
  path: string,
  sizeBytes: number,
): { readonly template: RequestTemplate; readonly request: Outgoing } => {
  const line = `${method} ${place.accountPath}/${place.container}${path}`;
  const body = { "Content-Type": "application/octet-stream", "Content-Length": String(sizeBytes) };
  const head = headText(place, line, { "X-Auth-Token": place.token, ...(method === "PUT" ? body : {}) });
  const isPut = method === "PUT";
  const isOneWrite = sizeBytes <= ONE_WRITE_BYTES;
  const template = new RequestTemplate(head, isPut && isOneWrite ? contentOf(sizeBytes) : undefined);
  const chunk = isPut && !isOneWrite ? chunkOf : undefined;
  const chunkCount = chunk === undefined ? 0 : sizeBytes / CHUNK_BYTES;
  return { template, request: { bytes: template.bytes, chunk, chunkCount, bringsBody: method !== "HEAD", line } };
};

const placeOf = (prefix: string, suffix = ""): string => `/${prefix}-${INDEX_PLACE}${suffix}`;

const objectCheck =
  (method: Method, sizeBytes: number): CheckedExchange["wrong"] =>
  ({ status, bodyBytes, contentLength }) => {
    if (status !== EXPECTED_STATUS[method]) return `status ${status}`;
    if (method === "GET" && bodyBytes !== sizeBytes) return `${bodyBytes} bytes of ${sizeBytes}`;
    return method === "HEAD" && contentLength !== sizeBytes ? `Content-Length ${contentLength}` : undefined;
  };

/** A function that sets the index of the one exchange it always returns. */
const objectRequest = (
  place: Place,
  method: Method,
  prefix: string,
  sizeBytes: number,
  suffix = "",
): ((index: number) => CheckedExchange) => {
  const { template, request } = outgoing(place, method, placeOf(prefix, suffix), sizeBytes);
  const exchange = { ...request, keepsBody: false, isTimed: true, wrong: objectCheck(method, sizeBytes) };
  return (index) => {
    template.setIndex(index);
    return exchange;
  };
};

const objectScript = (place: Place, work: ObjectWork, progress: Progress): Script => {
  const request = objectRequest(place, work.method, work.prefix, work.sizeBytes, work.suffix);
  return () => {
    if (!work.again && progress.begun >= work.count) return undefined;
    const index = work.first + (progress.begun % work.count);
    progress.begun += 1;
    return request(index);
  };
};

/** Listings of `names` names as JSON: of the first one the names are counted, the others must be as long. */
const listingRequest = (
  place: Place,
  query: string,
  names: number,
): { readonly template: RequestTemplate; readonly exchange: CheckedExchange } => {
  const { template, request } = outgoing(place, "GET", `?format=json&limit=${names}${query}`, 0);
  let firstBytes: number | undefined;
  const exchange: CheckedExchange = {
    ...request,
    get keepsBody(): boolean {
      return firstBytes === undefined;
    },
    isTimed: true,
    wrong: ({ status, bodyBytes, body }) => {
      if (status !== 200) return `status ${status}`;
      if (firstBytes !== undefined) {
        const difference = Math.abs(bodyBytes - firstBytes);
        return difference > firstBytes * LISTING_TOLERANCE ? `${bodyBytes} bytes, before ${firstBytes}` : undefined;
      }
      const found = body.split('"name"').length - 1;
      firstBytes = bodyBytes;
      return found === names ? undefined : `${found} names of ${names}`;
    },
  };
  return { template, exchange };
};

const listingScript = (place: Place, { prefix, names }: ListingWork, progress: Progress): Script => {
  const put = objectRequest(place, "PUT", prefix, 0);
  const listing = listingRequest(place, "", names);
  let isListingNext = false;
  return () => {
    isListingNext = !isListingNext;
    if (!isListingNext) return listing.exchange;
    const index = progress.begun % names;
    progress.begun += 1;
    return { ...put(index), isTimed: false };
  };
};

/** Pages of `names` names, each full: markers are among all names but the last page. */
const pageRequest = (
  place: Place,
  { prefix, first, count, names }: Pick<PageWork, "prefix" | "first" | "count" | "names">,
): ((turn: number) => CheckedExchange) => {
  const { template, exchange } = listingRequest(place, `&marker=${prefix}-${INDEX_PLACE}`, names);
  const markers = Math.max(1, count - names);
  return (turn) => {
    template.setIndex(first + ((turn * MARKER_STEP) % markers));
    return exchange;
  };
};

const pageScript = (place: Place, work: PageWork, progress: Progress): Script => {
  const request = pageRequest(place, work);
  return () => {
    progress.begun += 1;
    return request(progress.begun);
  };
};

const mixedScript = (place: Place, work: MixedWork, progress: Progress, client: number): Script => {
  const get = objectRequest(place, "GET", work.prefix, work.sizeBytes);
  const put = objectRequest(place, "PUT", work.putPrefix, work.sizeBytes);
  const remove = objectRequest(place, "DELETE", work.putPrefix, work.sizeBytes);
  const list = pageRequest(place, work);
  const own: number[] = [];
  let turn = client * PATTERN_STEP;
  const step = (): CheckedExchange => {
    turn += 1;
    const kind = MIXED_PATTERN[turn % MIXED_PATTERN.length] ?? "GET";
    switch (kind) {
      case "PUT": {
        const index = work.firstPut + progress.begun;
        progress.begun += 1;
        own.push(index);
        return put(index);
      }
      case "DELETE": {
        const index = own.shift();
        // Only a client that begins has nothing of its own yet.
        return index === undefined ? step() : remove(index);
      }
      case "list":
        return list(turn);
      case "GET":
        return get(work.first + ((turn * MARKER_STEP) % work.count));
    }
  };
  return step;
};

const requestExchange = (place: Place, work: RequestWork, bytesMin: number): CheckedExchange => {
  const { method, path, headers, body = "", status: expected } = work;
  const line = `${method} ${path}`;
  const length = body === "" ? {} : { "Content-Length": String(Buffer.byteLength(body)) };
  return {
    bytes: Buffer.concat([Buffer.from(headText(place, line, { ...headers, ...length }), "latin1"), Buffer.from(body)]),
    chunk: undefined,
    chunkCount: 0,
    bringsBody: method !== "HEAD",
    keepsBody: false,
    isTimed: true,
    line,
    wrong: ({ status, bodyBytes }) => {
      if (status !== expected) return `status ${status}`;
      return bodyBytes < bytesMin ? `${bodyBytes} bytes, fewer than ${bytesMin}` : undefined;
    },
  };
};

const requestScript = (place: Place, work: RequestWork): Script => {
  const exchange = requestExchange(place, work, 0);
  return () => exchange;
};

/** The clients of a load take turns at the same requests, of which there may be ten thousand. */
const exchangesOfTurns = new WeakMap<TurnWork, readonly CheckedExchange[]>();

const turnScript = (place: Place, work: TurnWork, progress: Progress): Script => {
  const exchanges =
    exchangesOfTurns.get(work) ?? work.requests.map((request) => requestExchange(place, request, work.bytesMin));
  exchangesOfTurns.set(work, exchanges);
  return () => {
    const exchange = exchanges[progress.begun % exchanges.length];
    progress.begun += 1;
    return exchange;
  };
};

/** The requests of client number `client` of a load. */
export const scriptOf = (place: Place, work: LoadWork, progress: Progress, client: number): Script => {
  switch (work.kind) {
    case "objects":
      return objectScript(place, work, progress);
    case "request":
      return requestScript(place, work);
    case "turn":
      return turnScript(place, work, progress);
    case "listing":
      return listingScript(place, work, progress);
    case "page":
      return pageScript(place, work, progress);
    case "mixed":
      return mixedScript(place, work, progress, client);
  }
};
