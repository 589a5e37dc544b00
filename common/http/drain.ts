import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { Server as NetServer } from "node:net";
import { hurrySignal, retirementOf } from "../succession.ts";

/** Connections become idle as their requests end; Node closes those alone that are idle when it is told to. */
const SWEEP_MS = 50;

/** Said in every answer from now on: who would send its next request on this connection opens another one. */
const sayClose = (_request: IncomingMessage, response: ServerResponse): void => {
  response.shouldKeepAlive = false;
};

/**
 * Ends a server: accepts nothing more, lets requests under way end for `limitMs`, cuts the rest. Where another process takes over
 * (`succession.ts`) connections without a request stay open for as long as that says, and requests on them are still answered, with
 * `Connection: close`: a client that was about to use one does not find it closed.
 */
export const drain = async (server: Server, limitMs: number): Promise<void> => {
  if (!server.listening) return;
  for (const event of ["request", "checkContinue"])
    if (server.listenerCount(event) > 0) server.prependListener(event, sayClose);
  const isEnded = new Promise<void>((resolve) => {
    // Its own close() begins with closing every idle connection.
    NetServer.prototype.close.call(server, () => resolve());
  });
  const timers: NodeJS.Timeout[] = [];
  const endWithin = (idleMs: number, wholeMs: number): void => {
    timers.push(setTimeout(() => server.closeAllConnections(), Math.max(idleMs, wholeMs)));
    const sweep = (): void => {
      server.closeIdleConnections();
      timers.push(setInterval(() => server.closeIdleConnections(), SWEEP_MS));
    };
    if (idleMs === 0) sweep();
    else timers.push(setTimeout(sweep, idleMs));
  };
  const endSoon = (): void => endWithin(0, limitMs);
  const retirement = retirementOf();
  endWithin(retirement?.idleMs ?? 0, retirement?.limitMs ?? limitMs);
  if (retirement !== undefined) hurrySignal.addEventListener("abort", endSoon, { once: true });
  await isEnded;
  hurrySignal.removeEventListener("abort", endSoon);
  for (const timer of timers) clearTimeout(timer);
  // Ends the watch over slow headers that it began with.
  server.close(() => {});
};
