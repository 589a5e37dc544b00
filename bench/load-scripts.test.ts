import { expect, test } from "vitest";
import type { LoadWork } from "./load.ts";
import { scriptOf } from "./load-scripts.ts";

const PLACE = { host: "h", port: 1, token: "t", accountPath: "/v1/a", container: "c" };

/** The first lines of what one client sends, at most `most`. */
const linesOf = (work: LoadWork, most: number): string[] => {
  const script = scriptOf(PLACE, work, { begun: 0 }, 0);
  const lines: string[] = [];
  for (let exchange = script(); exchange !== undefined && lines.length < most; exchange = script())
    lines.push(exchange.bytes.toString("latin1").split(" HTTP/1.1\r\n")[0] ?? "");
  return lines;
};

const OBJECTS = { kind: "objects", prefix: "o", suffix: "-x", first: 99_999, count: 2, sizeBytes: 3 } as const;

test("a load over objects goes through its indexes once, or again and again", () => {
  expect(linesOf({ ...OBJECTS, method: "DELETE", again: false }, 9)).toEqual([
    "DELETE /v1/a/c/o-0099999-x",
    "DELETE /v1/a/c/o-0100000-x",
  ]);
  const again = linesOf({ ...OBJECTS, method: "GET", again: true }, 3);
  expect(again.map((line) => line.slice(-9))).toEqual(["0099999-x", "0100000-x", "0099999-x"]);
});

test("a small body travels behind its head, a large one in whole chunks", () => {
  const script = (sizeBytes: number) =>
    scriptOf(PLACE, { ...OBJECTS, method: "PUT", again: true, sizeBytes }, { begun: 0 }, 0)()!;
  expect(script(3).bytes.toString()).toMatch(/Content-Length: 3\r\n\r\n.{3}$/);
  const large = script(4 * 1024 * 1024);
  expect(large.chunkCount * large.chunk!.length).toBe(4 * 1024 * 1024);
});

test("an answer with another status, length or number of names is a failure", () => {
  const get = scriptOf(PLACE, { ...OBJECTS, method: "GET", again: true }, { begun: 0 }, 0)()!;
  expect(get.wrong({ status: 200, contentLength: 3, bodyBytes: 3, body: "" })).toBeUndefined();
  expect(get.wrong({ status: 404, contentLength: 3, bodyBytes: 3, body: "" })).toBe("status 404");
  expect(get.wrong({ status: 200, contentLength: 2, bodyBytes: 2, body: "" })).toBe("2 bytes of 3");
  const page = scriptOf(PLACE, { kind: "page", prefix: "o", first: 0, count: 9, names: 2 }, { begun: 0 }, 0)()!;
  const body = '[{"name": "a"}, {"name": "b"}]';
  expect(page.wrong({ status: 200, contentLength: 9, bodyBytes: 9, body: '[{"name": "a"}]' })).toBe("1 names of 2");
  expect(page.wrong({ status: 200, contentLength: 900, bodyBytes: 900, body })).toMatch(/900 bytes, before 9/);
});

test("every page has a marker with a whole page of names behind it", () => {
  const lines = linesOf({ kind: "page", prefix: "o", first: 50, count: 5000, names: 1000 }, 4000);
  const markers = lines.map((line) => Number(/marker=o-(\d+)$/.exec(line)?.[1]));
  expect(Math.min(...markers)).toBe(50);
  expect(Math.max(...markers)).toBe(4049);
  expect(new Set(markers).size).toBe(4000);
});

test("a whole listing comes after a PUT into the container, and only the listing is timed", () => {
  const script = scriptOf(PLACE, { kind: "listing", prefix: "o", names: 7 }, { begun: 0 }, 0);
  const timed = Array.from({ length: 4 }, () => {
    const exchange = script()!;
    return [exchange.line.split(" ")[0], exchange.isTimed];
  });
  expect(timed).toEqual([
    ["PUT", false],
    ["GET", true],
    ["PUT", false],
    ["GET", true],
  ]);
});

test("a client of a mixed load deletes only what it has put itself", () => {
  const work = {
    kind: "mixed",
    prefix: "o",
    first: 0,
    count: 100,
    putPrefix: "m",
    firstPut: 5,
    sizeBytes: 3,
    names: 10,
  } as const;
  const lines = linesOf(work, 1000);
  const put = new Set<string>();
  for (const line of lines) {
    const [method = "", path = ""] = line.split(" ");
    if (method === "PUT") put.add(path);
    if (method === "DELETE") expect(put.delete(path)).toBe(true);
  }
  expect(lines.filter((line) => line.startsWith("DELETE")).length).toBe(30);
  expect(put.size).toBe(120);
});

test("requests in turn are shared by all clients, bodies have their length, and short answers are failures", () => {
  const request = { kind: "request", path: "/v3/auth/tokens", status: 201 } as const;
  const posts = ["é", "bb"].map((body) => ({ ...request, method: "POST" as const, headers: { A: "b" }, body }));
  const progress = { begun: 0 };
  const work = { kind: "turn", requests: posts, bytesMin: 10 } as const;
  const [one, other] = [scriptOf(PLACE, work, progress, 0), scriptOf(PLACE, work, progress, 1)];
  const sent = [one()!, other()!, one()!];
  expect(sent.map(({ bytes }) => bytes.toString())).toEqual(
    ["é", "bb", "é"].map(
      (body) => `POST /v3/auth/tokens HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 2\r\n\r\n${body}`,
    ),
  );
  const answer = { status: 201, contentLength: 10, bodyBytes: 10, body: "" };
  expect(sent[0]!.wrong(answer)).toBeUndefined();
  expect(sent[0]!.wrong({ ...answer, bodyBytes: 9 })).toBe("9 bytes, fewer than 10");
  expect(sent[0]!.wrong({ ...answer, status: 401 })).toBe("status 401");
});
