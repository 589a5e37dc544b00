import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Clock, systemClock } from "../clock.ts";
import { silentLog } from "../log.ts";
import { RpcClient, type RpcPeer } from "./client.ts";
import { encodeFrame, FRAME_HELLO, FRAME_REQUEST, type Frame, FrameDecoder } from "./frame.ts";
import { helloHeader, proofOf, WIRE_VERSIONS, type WireVersions } from "./handshake.ts";
import { PeerRefusals } from "./peer-refusals.ts";
import { bindingOf, clientTls, type RpcTlsFiles } from "./secure-transport.ts";
import { RpcServer } from "./server.ts";

const KEY = Buffer.alloc(32, 7);
const OTHER_KEY = Buffer.alloc(32, 8);
const TIMEOUT_MS = 20_000;

/** Bodies of the requests that the server's handler was given. */
let asked: Buffer[];
/** What it answers with. */
let answer: Buffer;
let server: RpcServer;
let address: { readonly host: string; readonly port: number };
let refusals: PeerRefusals;
let open: { destroy(): unknown }[];
let folder: string;

const serve = async (tls?: RpcTlsFiles, versions?: WireVersions, clock?: Clock): Promise<void> => {
  server = new RpcServer(
    KEY,
    (_header, body, reply) => {
      asked.push(Buffer.from(body));
      reply.ok([body.length], answer);
    },
    silentLog,
    { ...(versions === undefined ? {} : { versions }), ...(clock === undefined ? {} : { clock }) },
  );
  await server.listen({ host: "127.0.0.1", port: 0, ...(tls === undefined ? {} : { tls }) });
  address = { host: "127.0.0.1", port: server.port ?? 0 };
};

beforeEach(async () => {
  asked = [];
  answer = Buffer.alloc(0);
  open = [];
  folder = mkdtempSync(join(tmpdir(), "ringstead-peers-"));
  refusals = new PeerRefusals(silentLog);
  await serve();
});

afterEach(async () => {
  for (const socket of open) socket.destroy();
  await server[Symbol.asyncDispose]();
  refusals[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

/** The number answered, or the error's code and message. */
const ask = (client: RpcClient, body: Uint8Array = Buffer.from("good"), timeoutMs = TIMEOUT_MS): Promise<unknown> =>
  new Promise((resolve) => {
    client.call([], body, timeoutMs, (error, header) =>
      resolve(error === undefined ? header[0] : `${error.code}: ${error.message}`),
    );
  });

/** Asks once over a connection of its own; whoever was refused is not asked again. */
const askOnce = async (peer: RpcPeer = address, key = KEY): Promise<unknown> => {
  using client = new RpcClient(peer, key);
  return await ask(client);
};

/** The server serves whoever knows the key, and nobody else was served. */
const servesGoodPeers = async (peer: RpcPeer = address): Promise<void> => {
  const before = asked.length;
  expect(await askOnce(peer)).toBe(4);
  expect(asked.slice(before).map(String)).toEqual(["good"]);
};

const plainConnection = (): Socket => {
  const socket = connect(address);
  open.push(socket);
  socket.on("error", () => {});
  return socket;
};

const secureConnection = async (): Promise<TLSSocket> => {
  const socket = connectTls({ ...address, ...clientTls(KEY, address) });
  open.push(socket);
  socket.on("error", () => {});
  await once(socket, "secureConnect");
  return socket;
};

/** All that is received until the connection ends. */
const untilClosed = async (socket: Socket): Promise<Buffer> => {
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  if (!socket.closed) await once(socket, "close");
  return Buffer.concat(chunks);
};

/** A peer that speaks the protocol by hand: gives the server's challenge. */
const challengeOf = (socket: Socket): Promise<Buffer> =>
  new Promise((resolve) => {
    const decoder = new FrameDecoder(({ body }: Frame) => resolve(Buffer.from(body)));
    socket.once("data", (chunk: Buffer) => decoder.push(chunk));
  });

const hello = (challenge: Buffer, binding: Buffer): Buffer => {
  const own = randomBytes(32);
  const body = Buffer.concat([own, proofOf(KEY, "client", challenge, own, binding)]);
  return Buffer.concat([encodeFrame(FRAME_HELLO, 0, helloHeader(WIRE_VERSIONS, Date.now()), body.length), body]);
};

const requestFrame = (text: string): Buffer =>
  Buffer.concat([encodeFrame(FRAME_REQUEST, 1, [], Buffer.byteLength(text)), Buffer.from(text)]);

const codes = (): string[] => refusals.list().map(({ side, code }) => `${side} ${code}`);

test("nodes that share the key talk over TCP in TLS 1.3, and not a byte of it is readable on the way", async () => {
  const seen: Buffer[] = [];
  await using relay = await relayTo(address.port, (chunk) => {
    seen.push(chunk);
    return chunk;
  });
  answer = Buffer.from("what the server answers");
  using client = new RpcClient(relay.address, KEY);
  expect(await ask(client, Buffer.from("what the client asks"))).toBe(20);
  expect(client.wireVersion).toBe(WIRE_VERSIONS.newest);
  const wire = Buffer.concat(seen).toString("latin1");
  expect(wire.length).toBeGreaterThan(300);
  expect(wire).not.toMatch(/what the (client|server)/);
  expect(wire).not.toContain(KEY.toString("latin1"));
});

test("a peer with another key is refused on both sides with words, before it is told anything", async () => {
  expect(await askOnce(address, OTHER_KEY)).toMatch(/^rpc-unsent: .*does not prove this cluster's key/);
  expect(asked).toEqual([]);
  expect(codes().toSorted()).toEqual(["client rpc-untrusted", "server rpc-untrusted"]);
  await servesGoodPeers();
  expect(codes()).toEqual(["server rpc-untrusted"]);
});

test("a peer that speaks garbage, HTTP, or RPC in the clear gets no answer but a TLS alert, and is closed", async () => {
  const plainHello = hello(randomBytes(32), Buffer.alloc(0));
  for (const bytes of [randomBytes(4096), Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), plainHello]) {
    const socket = plainConnection();
    socket.write(bytes);
    const answered = await untilClosed(socket);
    expect(answered.length).toBeLessThanOrEqual(7);
    if (answered.length > 0) expect(answered[0]).toBe(0x15);
  }
  const fetched = await new Promise((resolve) => {
    const asking = httpRequest({ ...address, path: "/" }, resolve);
    asking.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    asking.end();
  });
  expect(typeof fetched).toBe("string");
  expect(asked).toEqual([]);
  expect(codes()).toEqual(["server rpc-not-tls"]);
  await servesGoodPeers();
});

test("a client that finds something else than TLS at a peer's address says so", async () => {
  const other = createServer((socket) => void socket.resume().end("220 mail.example ESMTP\r\n"));
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", () => resolve()));
  const peer = { host: "127.0.0.1", port: (other.address() as AddressInfo).port };
  expect(await askOnce(peer)).toMatch(/^rpc-unsent: .*does not speak TLS/);
  expect(codes()).toEqual(["client rpc-not-tls"]);
  await new Promise((resolve) => other.close(resolve));
});

test("a peer that says nothing, half a TLS handshake or half a hello is closed after five seconds", async () => {
  const started = performance.now();
  const silent = plainConnection();
  const half = plainConnection();
  half.write(Buffer.from("16030100c8010000c40303", "hex"));
  const greeted = await secureConnection();
  greeted.write(hello(await challengeOf(greeted), bindingOf(greeted)).subarray(0, 40));
  await expect.poll(() => server.strangers).toBe(3);
  await Promise.all([silent, half, greeted].map(untilClosed));
  const tookMs = performance.now() - started;
  expect(tookMs).toBeGreaterThan(4500);
  expect(tookMs).toBeLessThan(12_000);
  await expect.poll(() => server.strangers).toBe(0);
  expect(codes()).toEqual(["server rpc-silent"]);
  await servesGoodPeers();
});

test("a frame of a huge length ends the connection, before the hello as soon as it is more than a hello", async () => {
  const stranger = await secureConnection();
  const large = encodeFrame(FRAME_HELLO, 0, [], 100_000);
  stranger.write(large);
  await untilClosed(stranger);
  const known = await secureConnection();
  known.write(hello(await challengeOf(known), bindingOf(known)));
  const huge = encodeFrame(FRAME_REQUEST, 1, [], 0);
  huge.writeUInt32BE(0xffffffff, 12);
  known.write(huge);
  await untilClosed(known);
  expect(asked).toEqual([]);
  expect(refusals.list().map(({ code, reason }) => `${code}: ${reason}`)).toEqual([
    "rpc-malformed: malformed RPC frame: too large",
  ]);
  await servesGoodPeers();
});

test("who sends requests without end and reads no answer fills neither memory nor the way of others", async () => {
  answer = Buffer.alloc(256 * 1024);
  const greedy = await secureConnection();
  greedy.write(hello(await challengeOf(greedy), bindingOf(greedy)));
  greedy.pause();
  // Some 25 GiB of answers, if each were given.
  const many = Buffer.concat(Array.from({ length: 1000 }, () => requestFrame("more")));
  for (let round = 0; round < 100; round++) greedy.write(many);
  await expect.poll(() => asked.length).toBeGreaterThan(200);
  await new Promise((resolve) => setTimeout(resolve, 500));
  // Answers of 64 MiB, and one more, are kept for it.
  expect(asked.length).toBeLessThan(64 * 4 + 64);
  const before = asked.length;
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(asked.length).toBe(before);
  answer = Buffer.from("small");
  await servesGoodPeers();
  // It reads again, and is served again.
  greedy.resume();
  greedy.on("data", () => {});
  await expect.poll(() => asked.length, { timeout: TIMEOUT_MS }).toBeGreaterThan(before + 5000);
});

test("of connections that say no hello the server keeps 128, and a peer gets in between them", async () => {
  const idle = Array.from({ length: 400 }, () => plainConnection());
  await expect.poll(() => idle.filter(({ closed }) => closed).length, { timeout: TIMEOUT_MS }).toBeGreaterThan(260);
  expect(server.strangers).toBeLessThanOrEqual(128);
  await servesGoodPeers();
  expect(codes()).toContain("server rpc-crowded");
});

test("a hello that was recorded opens nothing: neither the bytes of a connection nor a proof of another one", async () => {
  const sent: Buffer[] = [];
  await using relay = await relayTo(address.port, (chunk, isFromClient) => {
    if (isFromClient) sent.push(Buffer.from(chunk));
    return chunk;
  });
  expect(await askOnce(relay.address)).toBe(4);
  asked = [];
  const replayed = plainConnection();
  replayed.write(Buffer.concat(sent));
  await untilClosed(replayed);
  // Within TLS, with a proof that fits the challenge but was made for another connection.
  const [first, second] = [await secureConnection(), await secureConnection()];
  const [, challenge] = await Promise.all([challengeOf(first), challengeOf(second)]);
  second.write(Buffer.concat([hello(challenge, bindingOf(first)), requestFrame("evil")]));
  await untilClosed(second);
  // And one that fits an earlier challenge.
  const third = await secureConnection();
  await challengeOf(third);
  third.write(Buffer.concat([hello(challenge, bindingOf(third)), requestFrame("evil")]));
  await untilClosed(third);
  expect(asked).toEqual([]);
  expect(codes()).toContain("server rpc-untrusted");
  await servesGoodPeers();
});

test("who sits on the wire and injects a frame, or changes a byte, ends the connection, and nothing of it is done", async () => {
  for (const change of [
    (chunk: Buffer) => Buffer.concat([chunk, requestFrame("evil")]),
    (chunk: Buffer) => {
      const changed = Buffer.from(chunk);
      changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
      return changed;
    },
    // A record of another one's that is repeated.
    (chunk: Buffer) => Buffer.concat([chunk, chunk]),
  ]) {
    let isEvil = false;
    await using relay = await relayTo(address.port, (chunk, isFromClient) =>
      isEvil && isFromClient ? change(chunk) : chunk,
    );
    using client = new RpcClient(relay.address, KEY);
    expect(await ask(client)).toBe(4);
    asked = [];
    isEvil = true;
    const answered = await ask(client, Buffer.from("asked"));
    isEvil = false;
    expect(String(answered)).toMatch(/^5$|^rpc-unreachable: the connection to the peer broke/);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(asked.map(String).filter((text) => text !== "asked")).toEqual([]);
    expect(asked.length).toBeLessThanOrEqual(1);
    await expect.poll(() => ask(client), { timeout: TIMEOUT_MS }).toBe(4);
  }
});

test("with certificates, both sides show one of the authority of rpc_tls_ca; the key is asked for behind it", async () => {
  const ours = authority("ours");
  const foreign = authority("foreign");
  const node = certificate(ours, "node", "IP:127.0.0.1");
  const elsewhere = certificate(ours, "elsewhere", "DNS:elsewhere.example");
  const stranger = certificate(foreign, "stranger", "IP:127.0.0.1");
  await server[Symbol.asyncDispose]();
  await serve(node);
  await servesGoodPeers({ ...address, tls: node });
  asked = [];
  // Signed by somebody else; no certificate but the key; the right certificate but another key.
  expect(await askOnce({ ...address, tls: { ...stranger, ca: node.ca } })).toMatch(/^rpc-unsent/);
  expect(await askOnce(address)).toMatch(/^rpc-unsent/);
  expect(await askOnce({ ...address, tls: node }, OTHER_KEY)).toMatch(/^rpc-unsent/);
  // A server whose certificate names another host.
  await server[Symbol.asyncDispose]();
  await serve(elsewhere);
  expect(await askOnce({ ...address, tls: node })).toMatch(/certificate was not accepted.*127\.0\.0\.1/);
  expect(asked).toEqual([]);
  expect(() => new RpcClient({ ...address, tls: { ...node, ca: join(folder, "absent.pem") } }, KEY)).toThrow(
    "rpc_tls_ca",
  );
});

test("two sides use the highest version that both speak, and tell each other when there is none", async () => {
  const versionOf = async (own: WireVersions): Promise<unknown> => {
    using client = new RpcClient(address, KEY, { versions: own });
    const answered = await ask(client);
    return client.wireVersion ?? answered;
  };
  await server[Symbol.asyncDispose]();
  await serve(undefined, { oldest: 2, newest: 4 });
  expect(await versionOf({ oldest: 1, newest: 3 })).toBe(3);
  expect(await versionOf({ oldest: 4, newest: 9 })).toBe(4);
  asked = [];
  expect(await versionOf({ oldest: 5, newest: 6 })).toMatch(
    /^rpc-unsent: .*speaks versions 2 to 4 of the wire format, this node versions 5 to 6/,
  );
  expect(await versionOf({ oldest: 1, newest: 1 })).toMatch(/this node version 1$/);
  expect(asked).toEqual([]);
  const told = refusals.list().map(({ side, code, reason, remedy }) => `${side} ${code}: ${reason}; ${remedy}`);
  expect(told).toContain(
    "server rpc-versions: it speaks version 1 of the wire format, this node versions 2 to 4; upgrade it to a version of Ringstead that speaks both",
  );
  expect(told).toContain(
    "client rpc-versions: it speaks versions 2 to 4 of the wire format, this node version 1; upgrade this node to a version of Ringstead that speaks both",
  );
});

test("a peer whose clock is more than thirty seconds off is refused on both sides, which say by how much", async () => {
  const shifted = async (offMs: number): Promise<unknown> => {
    using client = new RpcClient(address, KEY, { clock: { nowMs: () => Date.now() + offMs } });
    return await ask(client);
  };
  expect(await shifted(20_000)).toBe(4);
  expect(await shifted(-20_000)).toBe(4);
  asked = [];
  expect(await shifted(90_000)).toMatch(/^rpc-unsent: .*its clock is 90 s behind this node's, more than 30 s/);
  expect(refusals.list().map(({ side, code, reason }) => `${side} ${code}: ${reason}`)).toEqual([
    "client clock-off: its clock is 90 s behind this node's, more than 30 s",
    "server clock-off: its clock is 90 s ahead of this node's, more than 30 s",
  ]);
  expect(await shifted(-3_600_000)).toMatch(/its clock is 3600 s ahead of this node's/);
  expect(asked).toEqual([]);
});

test("a process that was stopped in the middle of the hello is late, and its clock is right all the same", async () => {
  await server[Symbol.asyncDispose]();
  // The client's answer to the challenge is read forty seconds after it was sent.
  let nowMs = Date.now();
  const clock = { nowMs: () => nowMs };
  await serve(undefined, undefined, clock);
  const socket = await secureConnection();
  const challenge = await challengeOf(socket);
  const own = randomBytes(32);
  const body = Buffer.concat([own, proofOf(KEY, "client", challenge, own, bindingOf(socket))]);
  const sent = encodeFrame(FRAME_HELLO, 0, helloHeader(WIRE_VERSIONS, nowMs), body.length);
  nowMs += 40_000;
  socket.write(Buffer.concat([sent, body, requestFrame("late")]));
  await expect.poll(() => asked.map(String)).toEqual(["late"]);
});

test("today's readers take a hello of the version before them, and one with fields that they do not know", async () => {
  for (const header of [[], [...helloHeader(WIRE_VERSIONS, systemClock.nowMs()), "a node's name", { more: 1 }]]) {
    asked = [];
    const socket = await secureConnection();
    const challenge = await challengeOf(socket);
    const own = randomBytes(32);
    const body = Buffer.concat([own, proofOf(KEY, "client", challenge, own, bindingOf(socket))]);
    socket.write(Buffer.concat([encodeFrame(FRAME_HELLO, 0, header, body.length), body, requestFrame("later")]));
    await expect.poll(() => asked.map(String)).toEqual(["later"]);
    socket.destroy();
  }
});

/** A TCP proxy that may change what passes. */
const relayTo = async (
  port: number,
  change: (chunk: Buffer, isFromClient: boolean) => Buffer,
): Promise<AsyncDisposable & { readonly address: { readonly host: string; readonly port: number } }> => {
  const sockets: Socket[] = [];
  const relay: Server = createServer((inner) => {
    const outer = connect(port, "127.0.0.1");
    sockets.push(inner, outer);
    for (const [from, to] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      from.on("data", (chunk: Buffer) => void (to.writable && to.write(change(chunk, from === inner))));
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", () => resolve()));
  return {
    address: { host: "127.0.0.1", port: (relay.address() as AddressInfo).port },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => relay.close(resolve));
    },
  };
};

const openssl = (...words: string[]): void =>
  void execFileSync("openssl", words, { cwd: folder, stdio: ["ignore", "ignore", "ignore"] });

/** The name of an authority's files. */
const authority = (name: string): string => {
  const subject = ["-subj", `/CN=${name}`, "-days", "2", "-nodes"];
  openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    ...subject,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.pem`,
  );
  return name;
};

const certificate = (issuer: string, name: string, alternativeName: string): RpcTlsFiles => {
  const subject = ["-subj", `/CN=${name}`, "-days", "2", "-nodes", "-addext", `subjectAltName=${alternativeName}`];
  const signed = ["-CA", `${issuer}.pem`, "-CAkey", `${issuer}.key`];
  openssl(
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    ...subject,
    ...signed,
    "-keyout",
    `${name}.key`,
    "-out",
    `${name}.pem`,
  );
  return { cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`), ca: join(folder, `${issuer}.pem`) };
};
