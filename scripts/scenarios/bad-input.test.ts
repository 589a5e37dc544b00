import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Ready, TestInstallation } from "./installation.ts";
import { ObjectClient } from "./object-client.ts";

/**
 * What strangers send to the object store's port: each gets its exact status and a body that says what is wrong, and the processes that
 * served it are the same afterwards. Sockets rather than a client, since clients refuse to send most of this.
 */
const installation = new TestInstallation(["--only", "object"]);
let ready: Ready;
let port = 0;
let account = "";
let token = "";

const LIMIT_MS = 20_000;

/** Sends `text` (latin1) and gives the whole answer when the server ended the connection, or after both did with `endsAtOnce`. */
const exchange = (text: string, endsAtOnce = false): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    let answer = "";
    const timer = setTimeout(() => socket.destroy(new Error(`no end after ${JSON.stringify(answer)}`)), LIMIT_MS);
    socket.on("data", (data) => {
      answer += data.toString("latin1");
    });
    socket.on("error", (error) => ("code" in error && error.code === "ECONNRESET" ? undefined : reject(error)));
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(answer);
    });
    socket.write(text, "latin1");
    if (endsAtOnce) socket.end();
  });

const request = (line: string, headers: readonly string[] = [], body = "", withToken = true): string =>
  [
    `${line} HTTP/1.1`,
    "Host: localhost",
    ...(withToken ? [`X-Auth-Token: ${token}`] : []),
    "Connection: close",
    ...headers,
    "",
    body,
  ].join("\r\n");

const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3})/.exec(answer)?.[1] ?? 0);
const bodyOf = (answer: string): string => answer.slice(answer.indexOf("\r\n\r\n") + 4);

const v1Login = async (): Promise<void> => {
  const client = await ObjectClient.login(ready.swiftAuthV1);
  token = client.token;
  const storageUrl = new URL(client.url);
  port = Number(storageUrl.port);
  account = storageUrl.pathname;
};

beforeAll(async () => {
  ready = await installation.up();
  await v1Login();
  expect(statusOf(await exchange(request(`PUT ${account}/c`, ["Content-Length: 0"])))).toBe(201);
  expect(statusOf(await exchange(request(`PUT ${account}/c/o`, ["Content-Length: 5"], "hello")))).toBe(201);
}, 120_000);

afterAll(async () => {
  const { processes } = installation.ready();
  expect(processes).toEqual(ready.processes);
  await installation[Symbol.asyncDispose]();
}, 60_000);

type Case = {
  readonly what: string;
  readonly text: () => string;
  readonly status: number;
  readonly says: RegExp;
};

const longName = (length: number): string => "n".repeat(length);

const CASES: readonly Case[] = [
  { what: "a path with bad UTF-8", text: () => request(`GET ${account}/c/%ff%fe`), status: 412, says: /Invalid UTF8/ },
  { what: "a NUL in a name", text: () => request(`GET ${account}/c/a%00b`), status: 412, says: /contains NULL/ },
  { what: "a broken escape", text: () => request(`GET ${account}/c/a%zz`), status: 412, says: /Invalid UTF8/ },
  {
    what: "an object's name that is too long",
    text: () => request(`PUT ${account}/c/${longName(1025)}`, ["Content-Length: 0"]),
    status: 400,
    says: /Object name length of 1025 longer than 1024/,
  },
  {
    what: "a container's name that is too long",
    text: () => request(`PUT ${account}/${longName(257)}`, ["Content-Length: 0"]),
    status: 400,
    says: /Container name length of 257 longer than 256/,
  },
  {
    what: "an account's name that is too long",
    text: () => request(`GET /v1/${longName(257)}`),
    status: 400,
    says: /Account name length of 257 longer than 256/,
  },
  {
    what: "a metadata value that is too long",
    text: () => request(`POST ${account}/c/o`, [`X-Object-Meta-A: ${longName(257)}`, "Content-Length: 0"]),
    status: 400,
    says: /Metadata value longer than 256/,
  },
  {
    what: "a metadata name that is too long",
    text: () => request(`POST ${account}/c/o`, [`X-Object-Meta-${longName(129)}: 1`, "Content-Length: 0"]),
    status: 400,
    says: /Metadata name too long/,
  },
  {
    what: "a metadata header without a name",
    text: () => request(`POST ${account}/c/o`, ["X-Object-Meta-: 1", "Content-Length: 0"]),
    status: 400,
    says: /name cannot be empty/,
  },
  {
    what: "too many metadata headers",
    text: () =>
      request(`POST ${account}/c/o`, [
        ...Array.from({ length: 91 }, (_, index) => `X-Object-Meta-${index}: 1`),
        "Content-Length: 0",
      ]),
    status: 400,
    says: /Too many metadata items; max 90/,
  },
  {
    what: "a metadata value that is not UTF-8",
    text: () => request(`POST ${account}/c/o`, ["X-Object-Meta-A: \xff\xfe", "Content-Length: 0"]),
    status: 400,
    says: /valid UTF-8/,
  },
  {
    what: "a header block that is too long",
    text: () => request(`GET ${account}/c/o`, [`X-Long: ${longName(200_000)}`]),
    status: 431,
    says: /too long/,
  },
  { what: "a PUT without a length", text: () => request(`PUT ${account}/c/x`), status: 411, says: /Content-Length/ },
  {
    what: "a length that is no number",
    text: () => request(`PUT ${account}/c/x`, ["Content-Length: five"], "hello"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "a negative length",
    text: () => request(`PUT ${account}/c/x`, ["Content-Length: -5"], "hello"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "an object beyond the largest size",
    text: () => request(`PUT ${account}/c/x`, ["Content-Length: 5368709123"]),
    status: 413,
    says: /too large/,
  },
  {
    what: "two different lengths",
    text: () => request(`PUT ${account}/c/x`, ["Content-Length: 5", "Content-Length: 6"], "hello!"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "a length and a chunked body",
    text: () =>
      request(`PUT ${account}/c/x`, ["Content-Length: 5", "Transfer-Encoding: chunked"], "5\r\nhello\r\n0\r\n\r\n"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "an unknown transfer encoding",
    text: () => request(`PUT ${account}/c/x`, ["Transfer-Encoding: gzip"], "hello"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "a chunk whose length is no number",
    text: () => request(`PUT ${account}/c/x`, ["Transfer-Encoding: chunked"], "zz\r\nhello\r\n0\r\n\r\n"),
    status: 400,
    says: /malformed/,
  },
  {
    what: "a wrong ETag",
    text: () => request(`PUT ${account}/c/x`, ["Content-Length: 5", `ETag: ${"0".repeat(32)}`], "hello"),
    status: 422,
    says: /checksum/,
  },
  {
    what: "a method that HTTP does not know",
    text: () => request(`FROB ${account}/c/o`),
    status: 400,
    says: /malformed/,
  },
  {
    what: "a method that the store does not know",
    text: () => request(`PATCH ${account}/c/o`),
    status: 405,
    says: /method/i,
  },
  {
    what: "a range behind the end",
    text: () => request(`GET ${account}/c/o`, ["Range: bytes=9-"]),
    status: 416,
    says: /range/i,
  },
  {
    what: "a due time that is no number",
    text: () => request(`PUT ${account}/c/x`, ["X-Delete-At: soon", "Content-Length: 0"]),
    status: 400,
    says: /X-Delete-At/,
  },
  {
    what: "a due time that has passed",
    text: () => request(`PUT ${account}/c/x`, ["X-Delete-At: 1", "Content-Length: 0"]),
    status: 400,
    says: /in past/,
  },
  { what: "no token", text: () => request(`GET ${account}/c`, [], "", false), status: 401, says: /authorized/ },
  {
    what: "an altered token",
    text: () => request(`GET ${account}/c`, [`X-Auth-Token: ${token.slice(0, -8)}AAAAAAAA`], "", false),
    status: 401,
    says: /authorized|token/i,
  },
  {
    what: "a token that is no token",
    text: () => request(`GET ${account}/c`, ["X-Auth-Token: ../../etc/passwd"], "", false),
    status: 401,
    says: /authorized|token/i,
  },
  {
    what: "a token with the account of another project",
    text: () => request(`PUT /v1/AUTH_${"f".repeat(32)}/c`, ["Content-Length: 0"]),
    status: 403,
    says: /denied/,
  },
  {
    what: "a listing limit beyond the largest",
    text: () => request(`GET ${account}/c?limit=10001`),
    status: 412,
    says: /limit/i,
  },
  { what: "a path of another API", text: () => request("GET /v3/users"), status: 404, says: /not be found/ },
  { what: "another protocol", text: () => "SSH-2.0-OpenSSH_9.2\r\n\r\n", status: 400, says: /malformed/ },
];

for (const { what, text, status, says } of CASES) {
  test(`${what} gets ${status} and is told what is wrong`, async () => {
    const answer = await exchange(text());
    expect({ status: statusOf(answer), body: bodyOf(answer) }).toEqual({ status, body: expect.stringMatching(says) });
  });
}

test("malformed ranges and dates are ignored, as HTTP has it", async () => {
  for (const headers of [["Range: bytes=x-y"], ["Range: lines=1-2"], ["If-Modified-Since: yesterday"]]) {
    const answer = await exchange(request(`GET ${account}/c/o`, headers));
    expect({ status: statusOf(answer), body: bodyOf(answer) }).toEqual({ status: 200, body: "hello" });
  }
});

test("a request that is smuggled behind a length is never answered", async () => {
  const smuggled = request(`DELETE ${account}/c/o`);
  const body = `0\r\n\r\n${smuggled}`;
  const headers = [`Content-Length: ${body.length}`, "Transfer-Encoding: chunked"];
  const answer = await exchange(request(`PUT ${account}/c/x`, headers, body));
  expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
  expect(statusOf(answer)).toBe(400);
  expect(statusOf(await exchange(request(`HEAD ${account}/c/o`)))).toBe(200);
});

test("a body that is shorter than its length is not stored", async () => {
  for (const length of [10, 100_000, 2_000_000]) {
    await exchange(request(`PUT ${account}/c/short`, [`Content-Length: ${length}`], "hello"), true);
    expect(statusOf(await exchange(request(`GET ${account}/c/short`)))).toBe(404);
  }
});

test("clients that go away in the middle of anything leave a server that serves", async () => {
  const requests = [
    request(`GET ${account}/c/o`),
    request(`GET ${account}/c?format=json`),
    request(`PUT ${account}/c/gone`, ["Content-Length: 5"], "hello"),
    request(`PUT ${account}/c/gone`, ["Content-Length: 5000000"], "hello"),
    request(`GET ${account}/c`).slice(0, 40),
  ];
  await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const socket = connect(port, "127.0.0.1");
      socket.on("error", () => {});
      await new Promise((resolve) => socket.once("connect", resolve));
      socket.write(requests[index % requests.length] ?? "", "latin1");
      await new Promise((resolve) => setTimeout(resolve, index % 7));
      socket.resetAndDestroy();
    }),
  );
  expect(bodyOf(await exchange(request("GET /healthcheck")))).toBe("OK");
  expect(bodyOf(await exchange(request(`GET ${account}/c/o`)))).toBe("hello");
});
