import { createServer, request } from "node:http";
import { listen } from "../common/http/listen.ts";
import type { Metrics } from "../common/metrics.ts";
import { splitAddress } from "./preflight.ts";

const READ_LIMIT_MS = 2_000;
const PAGE_BYTES_MAX = 8 * 1024 * 1024;

/** GET over a Unix socket. Rejects on errors, on a status other than 200, after 2 s and past 8 MiB. */
export const getOverSocket = (socketPath: string, path: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const asked = request({ socketPath, path, timeout: READ_LIMIT_MS }, (response) => {
      const chunks: Buffer[] = [];
      let sizeBytes = 0;
      response.on("data", (chunk: Buffer) => {
        sizeBytes += chunk.length;
        if (sizeBytes > PAGE_BYTES_MAX) response.destroy(new Error(`${path} is longer than ${PAGE_BYTES_MAX} bytes`));
        chunks.push(chunk);
      });
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString("utf8");
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`${path} answered ${response.statusCode}: ${text.slice(0, 200)}`));
      });
    });
    asked.on("timeout", () => asked.destroy(new Error(`no answer from ${socketPath} within ${READ_LIMIT_MS} ms`)));
    asked.on("error", reject);
    asked.end();
  });

/** Joins pages so that each family has one HELP and one TYPE and all its samples in one place, as Prometheus demands. */
export const joinPages = (pages: readonly string[]): string => {
  const families = new Map<string, { head: string[]; samples: string[] }>();
  for (const page of pages) {
    for (const line of page.split("\n")) {
      if (line === "") continue;
      const [, comment, named] = line.match(/^# (HELP|TYPE) (\S+)/) ?? [];
      const name = named ?? line.match(/^[a-zA-Z_:][\w:]*/)?.[0] ?? "";
      const family = families.get(name) ?? { head: [], samples: [] };
      families.set(name, family);
      if (comment === undefined) family.samples.push(line);
      else if (!family.head.some((head) => head.startsWith(`# ${comment} `))) family.head.push(line);
    }
  }
  return [...families.values()]
    .flatMap(({ head, samples }) => [...head, ...samples, ""].slice(0, -1))
    .join("\n")
    .concat("\n");
};

/** Serves /metrics on `address`: the supervisor's registry and the pages of all processes that answer. */
export const serveMetricsPage = async (
  address: string,
  own: Metrics,
  sockets: () => readonly string[],
): Promise<AsyncDisposable> => {
  const server = createServer((incoming, response) => {
    if (incoming.url?.split("?")[0] !== "/metrics") {
      response.writeHead(404, { "content-type": "text/plain" }).end("only /metrics is here\n");
      return;
    }
    void Promise.allSettled(sockets().map((socket) => getOverSocket(socket, "/metrics"))).then((pages) => {
      const texts = pages.flatMap((page) => (page.status === "fulfilled" ? [page.value] : []));
      response.setHeader("content-type", "text/plain; version=0.0.4; charset=utf-8");
      response.end(joinPages([own.render(), ...texts]));
    });
  });
  await listen(server, splitAddress(address));
  return {
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};
