import { Agent, request, type IncomingMessage } from "node:http";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { type Log, silentLog } from "../../common/log.ts";
import { createMetrics } from "../../common/metrics.ts";
import { createSwiftServer, type SwiftServerOptions } from "./swift-server.ts";

const unbuilt = (): never => {
  throw new RingsteadError("quorum-unavailable", "there is no store behind this server");
};

let lines: Record<string, unknown>[];
let port: number;
let agent: Agent;
let server: ReturnType<typeof createSwiftServer>;

beforeEach(async () => {
  lines = [];
  const log: Log = { ...silentLog, info: (_message, fields) => void lines.push({ ...fields }) };
  server = createSwiftServer({
    services: { clock: systemClock } as SwiftServerOptions["services"],
    verifier: { verify: unbuilt },
    identity: {
      v1Auth: unbuilt,
      ec2: unbuilt,
      readyInfo: unbuilt,
      publicKeys: unbuilt,
      revocations: unbuilt,
      tokenState: unbuilt,
      serviceToken: unbuilt,
    },
    version: "0",
    log,
    metrics: createMetrics(),
    tls: undefined,
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  port = typeof address === "object" && address !== null ? address.port : 0;
  agent = new Agent({ keepAlive: true, maxSockets: 1 });
});

afterEach(async () => {
  agent.destroy();
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
});

const ask = (method: string, path: string, body?: Buffer): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { "Content-Length": body.length };
    const outgoing = request({ host: "127.0.0.1", port, method, path, agent, headers }, (response) => {
      response.resume().on("end", () => resolve(response));
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });

test("a refused request without a body is answered at once, and its connection goes on", async () => {
  const startMs = performance.now();
  let connections = 0;
  server.on("connection", () => {
    connections += 1;
  });
  for (const method of ["GET", "HEAD", "DELETE", "GET"]) {
    const response = await ask(method, "/nothing");
    expect([response.statusCode, response.headers.connection]).toEqual([404, "keep-alive"]);
  }
  expect(connections).toBe(1);
  expect(performance.now() - startMs).toBeLessThan(1500);
});

test("a refused request with a body is answered, and the access log has its end", async () => {
  const response = await ask("PUT", "/nothing", Buffer.alloc(100_000));
  expect(response.statusCode).toBe(404);
  await expect.poll(() => lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({ method: "PUT", path: "/nothing", status: 404, remote: "127.0.0.1" });
});

test("every answer has a transaction id of its own, in the form of Swift's tools, also past the digits drawn at once", async () => {
  const ids = new Set<unknown>();
  for (let count = 0; count < 600; count++) {
    const { headers } = await ask("GET", "/healthcheck");
    expect(headers["x-trans-id"]).toMatch(/^tx[0-9a-f]{21}-[0-9a-f]{10}$/);
    expect(headers["x-openstack-request-id"]).toBe(headers["x-trans-id"]);
    ids.add(headers["x-trans-id"]);
  }
  expect(ids.size).toBe(600);
});
