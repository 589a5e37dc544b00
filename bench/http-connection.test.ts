import { createServer, type Server, type Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { type Answer, type Exchange, HttpConnection } from "./http-connection.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** A server that answers each piece it receives with the next of `answers`, given as pieces written one by one. */
const serve = (answers: readonly (readonly string[])[]): Promise<number> =>
  new Promise((resolve) => {
    let next = 0;
    const answer = async (socket: Socket): Promise<void> => {
      const pieces = answers[next] ?? [];
      next += 1;
      for (const piece of pieces) {
        socket.write(piece);
        await new Promise((wait) => setTimeout(wait, 5));
      }
      if (pieces.at(-1) === "") socket.destroy();
    };
    const server = createServer((socket) => {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("data", () => void answer(socket));
    });
    servers.push(server);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });

const GET: Exchange = {
  bytes: Buffer.from("GET / HTTP/1.1\r\n\r\n"),
  chunk: undefined,
  chunkCount: 0,
  bringsBody: true,
  keepsBody: true,
};

const exchanges = async (port: number, requests: readonly Exchange[]): Promise<(Answer | string)[]> => {
  const seen: (Answer | string)[] = [];
  await new Promise<void>((resolve) => {
    const step = (): void => {
      const request = requests[seen.length];
      if (request === undefined) resolve();
      else connection.send(request);
    };
    const connection: HttpConnection = new HttpConnection("127.0.0.1", port, {
      answered: (answer) => {
        seen.push({ ...answer });
        if (seen.length === requests.length) connection.close();
        step();
      },
      failed: (reason) => {
        seen.push(reason.message);
        step();
      },
    });
    step();
  });
  return seen;
};

test("an answer is whole however its head and body are cut into pieces", async () => {
  const port = await serve([
    ["HTTP/1.1 200 OK\r\nContent-Le", "ngth: 5\r\n\r", "\nhe", "llo"],
    ["HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n"],
  ]);
  expect(await exchanges(port, [GET, GET])).toEqual([
    { status: 200, contentLength: 5, bodyBytes: 5, body: "hello" },
    { status: 201, contentLength: 0, bodyBytes: 0, body: "" },
  ]);
});

test("HEAD and 204 end with their head, whatever length it names", async () => {
  const port = await serve([
    ["HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n"],
    ["HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n"],
  ]);
  const answers = await exchanges(port, [{ ...GET, bringsBody: false }, GET]);
  expect(answers).toMatchObject([
    { status: 200, contentLength: 4096, bodyBytes: 0 },
    { status: 204, bodyBytes: 0 },
  ]);
});

test("a connection that breaks in the middle of a body fails that exchange, and nothing of it is left in the next one", async () => {
  const port = await serve([
    ["HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", ""],
    ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"],
  ]);
  const answers = await exchanges(port, [GET, GET]);
  expect(answers[0]).toMatch(/closed|ECONNRESET/);
  expect(answers[1]).toMatchObject({ status: 200, body: "ok" });
});

test("a server that closes after each answer is connected to anew", async () => {
  const closing = ["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", ""];
  const port = await serve([closing, closing]);
  expect(await exchanges(port, [GET, GET])).toMatchObject([{ body: "ok" }, { body: "ok" }]);
});

test("a chunked body is refused, not misread", async () => {
  const port = await serve([["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]]);
  expect(await exchanges(port, [GET])).toEqual(["the server sent a chunked body"]);
});
