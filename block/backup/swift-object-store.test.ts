import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { SwiftObjectStore } from "./swift-object-store.ts";

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A store whose answers are given one after the other, the last one for ever, and what it was asked. */
const opened = async (...answers: readonly (number | Handler)[]) => {
  const asked: string[] = [];
  let tokens = 0;
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${String(request.headers["x-auth-token"])}`);
    const answer = answers[Math.min(asked.length, answers.length) - 1] ?? 500;
    request.resume().on("end", () => {
      if (typeof answer === "function") answer(request, response);
      else response.writeHead(answer).end("words");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const store = new SwiftObjectStore({
    endpoint: `http://127.0.0.1:${port}`,
    ca: undefined,
    access: () => Promise.resolve({ token: `token${++tokens}`, projectId: "p", expiresInSeconds: 3600 }),
  });
  onTestFinished(() => store[Symbol.dispose]());
  return { store, asked, server };
};

test("a container is made before the first object, and made again where somebody removed it", async () => {
  const { store, asked } = await opened(201, 201, 404, 202, 201);
  await store.put("c", "chunks/a", Buffer.from("x"));
  await store.put("c", "chunks/b", Buffer.from("x"));
  expect(asked.map((one) => one.replace("/v1/AUTH_p/", "").replace(" token1", ""))).toEqual([
    "PUT c",
    "PUT c/chunks/a",
    "PUT c/chunks/b",
    "PUT c",
    "PUT c/chunks/b",
  ]);
});

test("a token that is refused is taken anew, and one that goes on being refused is said to be", async () => {
  const { store, asked } = await opened(401, 200);
  expect(await store.has("c", "a")).toBe(true);
  expect(asked.map((one) => one.split(" ")[2])).toEqual(["token1", "token2"]);
  const other = await opened(401);
  await expect(other.store.has("c", "a")).rejects.toMatchObject({ code: "object-store-refused" });
  expect(other.asked).toHaveLength(3);
});

test("what is not now is asked again, and is away where it stays so", async () => {
  const { store, asked } = await opened(503, 429, 204);
  await store.remove("c", "a");
  expect(asked).toHaveLength(3);
  const other = await opened(503);
  await expect(other.store.remove("c", "a")).rejects.toMatchObject({
    code: "object-store-away",
    message: "the object store answers 503: words",
  });
  const gone = await opened((request) => request.socket.destroy());
  await expect(gone.store.get("c", "a", 10)).rejects.toMatchObject({ code: "object-store-away" });
});

test("an answer that is larger than what was asked for, or is no listing, is refused", async () => {
  const large: Handler = (_request, response) => response.writeHead(200).end(Buffer.alloc(1_000_000));
  const { store } = await opened(large);
  await expect(store.get("c", "a", 1000)).rejects.toMatchObject({ code: "object-store-refused" });
  for (const text of ["{", "{}", '[{"name": 1}]']) {
    const other = await opened((_request, response) => response.writeHead(200).end(text));
    await expect(other.store.list("c", "", "")).rejects.toMatchObject({ code: "object-store-refused" });
  }
});

test("what it may not, and what it did not expect, is refused", async () => {
  for (const status of [403, 400, 409]) {
    const { store } = await opened(201, status);
    await expect(store.put("c", "a", Buffer.alloc(1))).rejects.toMatchObject({ code: "object-store-refused" });
  }
  const { store } = await opened(200);
  await expect(store.has("c", "../x?y")).rejects.toThrow("no name");
});
