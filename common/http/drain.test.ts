import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { drain } from "./drain.ts";

let server: Server;
let answerSlow: (() => void) | undefined;

beforeEach(async () => {
  vi.resetModules();
  server = createServer((request, response) => {
    if (request.url === "/slow") answerSlow = () => void response.end("slow");
    else response.end("fast");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
});

afterEach(() => server.closeAllConnections());

const connection = async (): Promise<Socket> => {
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
};

const ask = async (socket: Socket, path: string): Promise<string> => {
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  const [answer] = (await once(socket, "data")) as [Buffer];
  return answer.toString();
};

test("a server that just ends closes connections without a request, and cuts what is under way after its time", async () => {
  const idle = await connection();
  expect(await ask(idle, "/fast")).toMatch(/Connection: keep-alive[^]*fast$/);
  const slow = await connection();
  slow.write("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
  await expect.poll(() => answerSlow).toBeDefined();
  const started = performance.now();
  const ended = drain(server, 300);
  await once(idle, "close");
  expect(performance.now() - started).toBeLessThan(250);
  await ended;
  expect(performance.now() - started).toBeGreaterThan(250);
  expect(server.listening).toBe(false);
});

test("a server that retires answers on connections that clients kept open, once, and says that they end", async () => {
  const succession = await import("../succession.ts");
  const { drain: drainRetiring } = await import("./drain.ts");
  succession.retire({ idleMs: 700, limitMs: 5000 });
  const [kept, silent] = [await connection(), await connection()];
  expect(await ask(kept, "/fast")).toContain("Connection: keep-alive");
  expect(await ask(silent, "/fast")).toContain("Connection: keep-alive");
  const started = performance.now();
  const ended = drainRetiring(server, 100);
  const port = (server.address() as AddressInfo | null)?.port;
  expect(port).toBeUndefined();
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(await ask(kept, "/fast")).toMatch(/Connection: close[^]*fast$/);
  await once(kept, "close");
  expect(silent.closed).toBe(false);
  await once(silent, "close");
  expect(performance.now() - started).toBeGreaterThan(600);
  await ended;
});

test("a server that retires and is hurried closes what is idle, and lets requests under way end", async () => {
  const succession = await import("../succession.ts");
  const { drain: drainRetiring } = await import("./drain.ts");
  succession.retire({ idleMs: 60_000, limitMs: 60_000 });
  const idle = await connection();
  expect(await ask(idle, "/fast")).toContain("fast");
  const slow = await connection();
  const slowAnswer = ask(slow, "/slow");
  await expect.poll(() => answerSlow).toBeDefined();
  const ended = drainRetiring(server, 5000);
  succession.hurry();
  await once(idle, "close");
  answerSlow?.();
  expect(await slowAnswer).toContain("slow");
  await ended;
});
