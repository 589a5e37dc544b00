import { spawn } from "node:child_process";
import { closeSync, openSync, read, writevSync } from "node:fs";
import { codeOf, messageOf, RingsteadError } from "../../../common/errors.ts";
import {
  answerHeader,
  attributesAnswer,
  decodeRequest,
  ERROR,
  type FuseRequest,
  initAnswer,
  isProtocolOf,
  openAnswer,
  REQUEST_LIMIT_BYTES,
  statfsAnswer,
  writeAnswer,
} from "./fuse-protocol.ts";

/** Each waits in a thread of libuv's pool, so that one can be read while another one is looked at. The process has to have more threads. */
const READERS = 3;
const MOUNT_LIMIT_MS = 15_000;

/** What is behind the file. Calls may come while others are under way. What is rejected with an `errorNumber` in its fields fails with that. */
export type FileContent = {
  readonly sizeBytes: number;
  /** Resolves with as many bytes as there are, in parts. */
  read(offset: number, length: number): Promise<readonly Buffer[]>;
  /** `bytes` are the caller's again once this resolves, and stay what they are until then. */
  write(offset: number, bytes: Buffer): Promise<void>;
  zero(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
};

const errorNumberOf = (error: unknown): number => {
  const number = error instanceof RingsteadError ? error.fields["errorNumber"] : undefined;
  return typeof number === "number" && number > 0 && number < 512 ? number : ERROR.io;
};

/**
 * A file that this process is the kernel's answer to. Per request: one read(2) of /dev/fuse in a thread, one copy of what is to be written, one
 * writev(2) for the answer. What is read or written is in no page cache.
 */
export class FuseFile {
  readonly #path: string;
  readonly #device: number;
  readonly #content: FileContent;
  /** Resolves once nobody can reach the file any more: it was unmounted. */
  readonly closed: Promise<void>;
  #readers = READERS;
  #close: () => void = () => {};

  private constructor(path: string, device: number, content: FileContent) {
    this.#path = path;
    this.#device = device;
    this.#content = content;
    this.closed = new Promise((resolve) => (this.#close = resolve));
  }

  /** Mounts it on the file at `path`, for root alone. Errors: "daemon-failed". Requires: root, a file at `path`. */
  static async mounted(path: string, content: FileContent): Promise<FuseFile> {
    const device = openSync("/dev/fuse", "r+");
    try {
      // The kernel takes the device from the process that mounts, which has inherited it.
      const options = "fd=3,rootmode=100000,user_id=0,group_id=0,nosuid,nodev,noexec";
      await runWith(["pipe", device], "mount", "-i", "-t", "fuse", "-o", options, "ringstead", path);
    } catch (error) {
      closeSync(device);
      throw error;
    }
    const file = new FuseFile(path, device, content);
    for (let count = 0; count < READERS; count++) file.#receive(Buffer.alloc(REQUEST_LIMIT_BYTES));
    return file;
  }

  /** Nobody finds the file any more; whoever has it open keeps it as long as this process lives. */
  async unmount(): Promise<void> {
    await runWith(["pipe"], "umount", "--lazy", this.#path);
  }

  #receive(buffer: Buffer): void {
    read(this.#device, buffer, 0, buffer.length, null, (error, length) => {
      // ENODEV: unmounted. The others say that a request was taken back before it was read.
      if (error !== null && !["EINTR", "EAGAIN", "ENOENT"].includes(error.code ?? "")) {
        this.#readers -= 1;
        if (this.#readers === 0) {
          closeSync(this.#device);
          this.#close();
        }
        return;
      }
      if (error === null) this.#take(decodeRequest(buffer.subarray(0, length)));
      this.#receive(buffer);
    });
  }

  /** Whatever of the request's buffer is needed later is copied before this returns. */
  #take(request: FuseRequest): void {
    switch (request.kind) {
      case "silence":
        return;
      case "nod":
        return this.#say(request.id, []);
      case "refuse":
        return this.#refuse(request.id, request.errorNumber);
      case "init":
        if (!isProtocolOf(request.major, request.minor)) return this.#refuse(request.id, ERROR.notSupported);
        return this.#say(request.id, [initAnswer(request.flags)]);
      case "attributes":
        return this.#say(request.id, [attributesAnswer(this.#content.sizeBytes)]);
      case "open":
        return this.#say(request.id, [openAnswer()]);
      case "statfs":
        return this.#say(request.id, [statfsAnswer()]);
      case "read":
        return this.#do(request.id, this.#content.read(request.offset, request.length), (parts) => parts);
      case "write": {
        const bytes = Buffer.from(request.bytes);
        return this.#do(request.id, this.#content.write(request.offset, bytes), () => [writeAnswer(bytes.length)]);
      }
      case "zero":
        return this.#do(request.id, this.#content.zero(request.offset, request.length), () => []);
      case "flush":
        return this.#do(request.id, this.#content.flush(), () => []);
    }
  }

  #do<Result>(id: bigint, done: Promise<Result>, bodyOf: (result: Result) => readonly Buffer[]): void {
    done.then(
      (result) => this.#say(id, bodyOf(result)),
      (error: unknown) => this.#refuse(id, errorNumberOf(error)),
    );
  }

  #say(id: bigint, body: readonly Buffer[]): void {
    const length = body.reduce((sum, part) => sum + part.length, 0);
    this.#answer([answerHeader(id, length), ...body]);
  }

  #refuse(id: bigint, errorNumber: number): void {
    this.#answer([answerHeader(id, 0, errorNumber)]);
  }

  #answer(parts: Buffer[]): void {
    try {
      writevSync(this.#device, parts);
    } catch (error) {
      // Nobody waits for it any more, or the file is gone.
      if (!["ENOENT", "ENODEV", "EBADF"].includes(codeOf(error) ?? "")) throw error;
    }
  }
}

/** Runs a program of util-linux; `stdio` is its standard error and what it inherits beyond. */
const runWith = (stdio: readonly ("pipe" | number)[], program: string, ...words: readonly string[]): Promise<void> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ["ignore", "ignore", ...stdio], timeout: MOUNT_LIMIT_MS });
    let said = "";
    child.stderr?.on("data", (chunk: Buffer) => (said += chunk.toString()));
    const failed = (why: string): void =>
      reject(new RingsteadError("daemon-failed", `the volume does not become a file: ${why.trim()}`));
    child.once("error", (error) => failed(messageOf(error)));
    child.once("close", (code, signal) => (code === 0 ? resolve() : failed(said || `${program}: ${code ?? signal}`)));
  });
