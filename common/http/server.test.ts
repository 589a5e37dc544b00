import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Type } from "typebox";
import { afterEach, beforeEach, expect, test } from "vitest";
import { RingsteadError } from "../errors.ts";
import { silentLog } from "../log.ts";
import type { ErrorEdge } from "./error-edge.ts";
import type { Route } from "./route.ts";
import { createHttpServer, type HttpServer } from "./server.ts";

const edge: ErrorEdge<"teapot"> = {
  status: {
    teapot: 418,
    "bad-request": 400,
    "body-too-large": 413,
    "not-found": 404,
    "method-not-allowed": 405,
    "not-implemented": 501,
    "internal-error": 500,
  },
  answer: ({ status, code, message }) => ({ body: { status, code, message } }),
};

const body = Type.Object({ name: Type.String(), size: Type.Optional(Type.Integer()) });
let gate: PromiseWithResolvers<void>;
let entered: PromiseWithResolvers<void>;

const routes: Route<undefined>[] = [
  {
    method: "POST",
    path: "/things",
    request: { body },
    handler: (request) => ({ status: 200, body: { got: request.body } }),
  },
  {
    method: "GET",
    path: "/things/:code",
    request: { params: Type.Object({ code: Type.String() }) },
    handler: (request) => {
      const { code } = request.params as { code: string };
      if (code === "crash") throw new Error("a secret detail");
      throw new RingsteadError(code, `refused with ${code}`);
    },
  },
  {
    method: "GET",
    path: "/slow",
    request: {},
    handler: async () => {
      entered.resolve();
      await gate.promise;
      return { status: 200, body: "done" };
    },
  },
];

let server: HttpServer;
let base: string;

const make = (): HttpServer =>
  createHttpServer({
    context: undefined,
    routes,
    absent: [
      { method: "GET", path: "/absent/:thing_id" },
      { method: "POST", path: "/things" },
    ],
    edge,
    log: silentLog,
    bodyLimitBytes: 4096,
  });

const post = (text: string, headers: Record<string, string> = { "content-type": "application/json" }) =>
  fetch(`${base}/things`, { method: "POST", body: text, headers });

beforeEach(async () => {
  gate = Promise.withResolvers();
  entered = Promise.withResolvers();
  server = make();
  base = `http://127.0.0.1:${await server.listen({ host: "127.0.0.1", port: 0 })}`;
});

afterEach(async () => {
  gate.resolve();
  await server[Symbol.asyncDispose]();
});

test("a valid body reaches the handler and the answer carries a request id", async () => {
  const response = await post('{"name":"a","size":1}');
  expect(response.status).toBe(200);
  expect(response.headers.get("x-openstack-request-id")).toMatch(/^req-[0-9a-f-]{36}$/);
  expect(await response.json()).toEqual({ got: { name: "a", size: 1 } });
});

test("bodies that are no JSON, of another shape, of another type, absent or too large are refused in the service's shape", async () => {
  const cases: [string, number, string, Record<string, string>?][] = [
    ["{", 400, "bad-request"],
    ['{"name":1}', 400, "bad-request"],
    ["{}", 400, "bad-request"],
    ["", 400, "bad-request"],
    ["name=a", 400, "bad-request", { "content-type": "application/x-www-form-urlencoded" }],
    [`{"name":"${"a".repeat(5000)}"}`, 413, "body-too-large"],
    [`{"name":"a","deep":${"[".repeat(1000)}${"]".repeat(1000)}}`, 400, "bad-request"],
  ];
  for (const [text, status, code, headers] of cases) {
    const response = await post(text, headers);
    expect([text.slice(0, 30), response.status]).toEqual([text.slice(0, 30), status]);
    expect(await response.json()).toMatchObject({ status, code });
  }
});

test("names that reach for a prototype are dropped", async () => {
  const response = await post(
    '{"name":"a","__proto__":{"polluted":1},"in":{"constructor":{"prototype":{"polluted":1}}}}',
  );
  expect(await response.json()).toEqual({ got: { name: "a", in: {} } });
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("an error's code decides the status; an unknown code and a crash are 500 without details", async () => {
  expect(await (await fetch(`${base}/things/teapot`)).json()).toMatchObject({
    status: 418,
    message: "refused with teapot",
  });
  for (const code of ["crash", "unheard-of", "toString", "__proto__"]) {
    const response = await fetch(`${base}/things/${code}`);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toMatch(/secret|refused/);
  }
});

test("an absent operation is 501 with its name, another method 405, another path 404", async () => {
  const absent = await fetch(`${base}/absent/1`);
  expect(absent.status).toBe(501);
  expect(await absent.json()).toMatchObject({ message: "GET /absent/{thing_id} is not implemented." });
  const method = await fetch(`${base}/things`, { method: "DELETE" });
  expect([method.status, method.headers.get("allow")]).toEqual([405, "POST"]);
  expect((await fetch(`${base}/elsewhere`)).status).toBe(404);
  expect((await fetch(`${base}/things/%zz`)).status).toBe(400);
});

test("bytes that are no HTTP are answered with 400 in the service's shape", async () => {
  const socket = connect(Number(new URL(base).port), "127.0.0.1");
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.write("this is not HTTP\r\n\r\n");
  await new Promise((resolve) => socket.once("close", resolve));
  expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1.1 400 Bad Request\r\n[^]*"code":"bad-request"/);
});

test("disposal lets a request under way finish", async () => {
  const response = fetch(`${base}/slow`);
  await entered.promise;
  const disposed = server[Symbol.asyncDispose]();
  gate.resolve();
  expect(await (await response).text()).toBe("done");
  await disposed;
});

test("a stale socket file is replaced, a served one is refused", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-http-"));
  const path = join(folder, "control.sock");
  const first = make();
  const second = make();
  try {
    await first.listen({ path });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await expect(second.listen({ path })).rejects.toMatchObject({ code: "address-in-use" });
    await first[Symbol.asyncDispose]();
    // A killed process leaves its file: bind without listening does the same.
    const dead = createServer();
    await new Promise<void>((resolve) => dead.listen(path, resolve));
    await new Promise<void>((resolve) => dead.close(() => resolve()));
    await second.listen({ path });
  } finally {
    await first[Symbol.asyncDispose]();
    await second[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  }
});
