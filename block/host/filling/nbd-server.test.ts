import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../../common/log.ts";
import { NbdConnection } from "../nbd-client.ts";
import { ByteReader } from "../nbd-bytes.ts";
import {
  COMMAND_FLUSH,
  COMMAND_READ,
  COMMAND_WRITE,
  OPTION_GO,
  OPTION_STRUCTURED_REPLY,
  REQUEST_MAGIC,
} from "../nbd-protocol.ts";
import { type NbdExport, NbdServer, type NbdServerOptions } from "./nbd-server.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** An export `disk` of 4 MiB: bytes, then a MiB of zeros, then what cannot be read. */
const serving = async () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const bytes = randomBytes(2 * MIB);
  const read = async (offset: number, length: number) => {
    const end = offset + length;
    if (end > 3 * MIB) throw new Error("it is damaged");
    const own = bytes.subarray(offset, Math.min(end, 2 * MIB));
    const zeroBytes = length - own.length;
    return [
      ...(own.length > 0 ? [{ offset, bytes: own }] : []),
      ...(zeroBytes > 0 ? [{ offset: offset + own.length, zeroBytes }] : []),
    ];
  };
  return { path: await listening(folder, { sizeBytes: 4 * MIB, read }), bytes };
};

type Limits = Pick<NbdServerOptions, "patienceMs" | "heldLimitBytes" | "takeLimitMs">;

/** Serves it as `disk`. */
const listening = async (folder: string, disk: NbdExport, limits: Limits = {}): Promise<string> => {
  const path = join(folder, "socket");
  const server = new NbdServer({ find: (name) => (name === "disk" ? disk : undefined), log: silentLog, ...limits });
  await server.listen(path);
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  return path;
};

const requestOf = (command: number, offset: number, length: number): Buffer => {
  const request = Buffer.alloc(28);
  request.writeUInt32BE(REQUEST_MAGIC, 0);
  request.writeUInt16BE(command, 6);
  request.writeBigUInt64BE(BigInt(offset), 16);
  request.writeUInt32BE(length, 24);
  return request;
};

/** A client that has shaken hands, asks so many times at once, and takes nothing of the answers. */
const insatiable = async (path: string, request: Buffer, count: number): Promise<Socket> => {
  const socket = connect(path);
  onTestFinished(() => void socket.destroy());
  socket.on("error", () => undefined);
  const reader = new ByteReader(socket);
  await reader.take(18);
  const structured = Buffer.alloc(16);
  structured.write("IHAVEOPT");
  structured.writeUInt32BE(OPTION_STRUCTURED_REPLY, 8);
  const go = Buffer.alloc(26);
  go.write("IHAVEOPT");
  go.writeUInt32BE(OPTION_GO, 8);
  go.writeUInt32BE(10, 12);
  go.writeUInt32BE(4, 16);
  go.write("disk", 20);
  socket.write(Buffer.concat([Buffer.from([0, 0, 0, 3]), structured, go]));
  await reader.take(20 + (20 + 12) + 20);
  socket.removeAllListeners("data").pause();
  socket.write(Buffer.alloc(count * request.length, request));
  return socket;
};

test("QEMU and libnbd read the export, and what cannot be read is an error and not zeros", async () => {
  const { path, bytes } = await serving();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  const uri = `nbd+unix:///disk?socket=${path}`;
  expect((await run("nbdinfo", [uri])).stdout).toMatch(/export-size: 4194304[^]*is_read_only: true/);
  const image = `driver=raw,offset=0,size=${3 * MIB},file.driver=nbd,file.server.type=unix,file.server.path=${path},file.export=disk`;
  const copy = join(dirname(path), "copy");
  await run("qemu-img", ["convert", "-O", "raw", "--image-opts", image, copy]);
  expect(readFileSync(copy).equals(Buffer.concat([bytes, Buffer.alloc(MIB)]))).toBe(true);
  await expect(run("qemu-io", ["-r", "-f", "raw", "-c", `read ${3 * MIB} 4096`, uri])).rejects.toMatchObject({
    stdout: expect.stringContaining("Input/output error"),
  });
  await expect(run("nbdinfo", [`nbd+unix:///other?socket=${path}`])).rejects.toThrow();
});

test("requests are answered side by side, and a write or what is beyond the end is refused", async () => {
  const { path, bytes } = await serving();
  using connection = await NbdConnection.opened(path, "disk", []);
  expect(connection.sizeBytes).toBe(4 * MIB);
  const answers = await Promise.all(
    Array.from({ length: 64 }, (_, index) => connection.ask(COMMAND_READ, index * 32_768, 32_768)),
  );
  for (const [index, [piece]] of answers.entries()) {
    if (piece?.kind !== "data") throw new Error("bytes were asked for");
    expect(piece.bytes.equals(bytes.subarray(index * 32_768, (index + 1) * 32_768))).toBe(true);
  }
  expect(await connection.ask(COMMAND_READ, 2 * MIB, MIB)).toEqual([{ kind: "hole", offset: 2 * MIB, length: MIB }]);
  await connection.ask(COMMAND_FLUSH, 0, 0);
  await expect(connection.ask(COMMAND_READ, 4 * MIB - 512, 1024)).rejects.toMatchObject({ code: "daemon-refused" });
  await expect(connection.ask(COMMAND_WRITE, 0, 512, Buffer.alloc(512))).rejects.toMatchObject({
    code: expect.stringMatching(/^daemon-/),
  });
});

test("what speaks no NBD is cut off, and others go on", async () => {
  const { path, bytes } = await serving();
  using connection = await NbdConnection.opened(path, "disk", []);
  const stranger = connect(path);
  stranger.on("error", () => undefined);
  stranger.end(randomBytes(256));
  await new Promise((resolve) => stranger.resume().once("close", resolve));
  const [piece] = await connection.ask(COMMAND_READ, 0, 512);
  expect(piece).toEqual({ kind: "data", offset: 0, bytes: bytes.subarray(0, 512) });
});

test("however much clients ask for at once and take nothing of, little is read for them, and others are served once they are cut off", async () => {
  const sizeBytes = 32 * MIB;
  const limitParts = 4;
  let reads = 0;
  const isSpent = Promise.withResolvers<void>();
  const bytes = randomBytes(MIB);
  const read: NbdExport["read"] = async (offset, length) => {
    reads += 1;
    if (reads === limitParts) isSpent.resolve();
    return [{ offset, bytes: bytes.subarray(0, length) }];
  };
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const path = await listening(folder, { sizeBytes, read }, { heldLimitBytes: limitParts * MIB, takeLimitMs: 500 });
  const greedy = await Promise.all(
    Array.from({ length: 4 }, () => insatiable(path, requestOf(COMMAND_READ, 0, sizeBytes), 2000)),
  );
  await isSpent.promise;
  using client = await NbdConnection.opened(path, "disk", []);
  const [piece] = await client.ask(COMMAND_READ, 5 * MIB, MIB);
  if (piece?.kind !== "data") throw new Error("bytes were asked for");
  expect(piece.bytes.equals(bytes)).toBe(true);
  // Of 256,000 that were asked for: what the limit lets be read for each before it is cut off, and the one of the client.
  expect(reads).toBeLessThan(32);
  for (const socket of greedy) socket.destroy();
  await client.ask(COMMAND_READ, 0, sizeBytes);
});

test("requests are not read without end either, where no answer is taken", async () => {
  const read: NbdExport["read"] = async (offset, length) => [{ offset, zeroBytes: length }];
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const path = await listening(folder, { sizeBytes: MIB, read }, { takeLimitMs: 500 });
  const count = 500_000;
  const flushes = await insatiable(path, requestOf(COMMAND_FLUSH, 0, 0), count);
  const wrong = await insatiable(path, requestOf(COMMAND_READ, MIB, 512), count);
  // A server that took all of it, and kept the answers, would cut nobody off.
  await Promise.all([flushes, wrong].map((socket) => new Promise((resolve) => socket.once("close", resolve))));
});

test("what waits for room that another client holds is not given up, however short the patience with the object store is", async () => {
  const isHeld = Promise.withResolvers<void>();
  let isSpent = false;
  const read: NbdExport["read"] = async (offset, length, signal) => {
    signal.throwIfAborted();
    if (isSpent) return [{ offset, zeroBytes: length }];
    isSpent = true;
    isHeld.resolve();
    return [{ offset, bytes: randomBytes(length) }];
  };
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  // The one that takes nothing is cut off only after the patience of whoever waits behind it is long over.
  const limits = { heldLimitBytes: MIB, patienceMs: 200, takeLimitMs: 2000 };
  const path = await listening(folder, { sizeBytes: MIB, read }, limits);
  await insatiable(path, requestOf(COMMAND_READ, 0, MIB), 1);
  await isHeld.promise;
  using client = await NbdConnection.opened(path, "disk", []);
  expect(await client.ask(COMMAND_READ, 0, 4096)).toEqual([{ kind: "hole", offset: 0, length: 4096 }]);
});

test("a read that takes longer than anybody waits is an error to the client, and the next one is answered", async () => {
  let isBack = false;
  const read: NbdExport["read"] = async (offset, length, signal) => {
    if (!isBack) await new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    return [{ offset, zeroBytes: length }];
  };
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const path = await listening(folder, { sizeBytes: MIB, read }, { patienceMs: 100 });
  using client = await NbdConnection.opened(path, "disk", []);
  await expect(client.ask(COMMAND_READ, 0, 4096)).rejects.toMatchObject({ code: "daemon-refused" });
  isBack = true;
  expect(await client.ask(COMMAND_READ, 0, 4096)).toEqual([{ kind: "hole", offset: 0, length: 4096 }]);
});
