import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../../common/log.ts";
import { NbdConnection } from "../nbd-client.ts";
import { COMMAND_FLUSH, COMMAND_READ, COMMAND_WRITE } from "../nbd-protocol.ts";
import { NbdServer } from "./nbd-server.ts";

const MIB = 1024 * 1024;
const run = promisify(execFile);

/** An export `disk` of 4 MiB: bytes, then a MiB of zeros, then what cannot be read. */
const serving = async () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const path = join(folder, "socket");
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
  const server = new NbdServer((name) => (name === "disk" ? { sizeBytes: 4 * MIB, read } : undefined), silentLog);
  await server.listen(path);
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  return { path, bytes, server };
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
