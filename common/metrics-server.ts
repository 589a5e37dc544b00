import { createServer } from "node:http";
import { listen } from "./http/listen.ts";
import type { Metrics } from "./metrics.ts";

/** Serves `metrics` as Prometheus text on a Unix socket, from where the supervisor collects every process's page. */
export const serveMetrics = async (metrics: Pick<Metrics, "render">, socketPath: string): Promise<AsyncDisposable> => {
  const server = createServer((_request, response) => {
    response.setHeader("content-type", "text/plain; version=0.0.4; charset=utf-8");
    response.end(metrics.render());
  });
  await listen(server, { path: socketPath });
  return {
    [Symbol.asyncDispose]: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};
