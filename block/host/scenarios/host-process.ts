import { type ChildProcess, fork } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RpcClient } from "../../../common/rpc/client.ts";
import { runtimePaths } from "../../../common/runtime-paths.ts";
import { createVolumeHostClient } from "../../client.ts";
import type { VolumeHost } from "../../volume-host.ts";
import { BLOCK_HOST_SOCKET } from "../../wire.ts";
import { endFromAbove, exportProcesses } from "../../../scripts/export-processes.ts";

const MAIN = join(import.meta.dirname, "..", "main.ts");
const READY_LIMIT_MS = 30_000;

/** A block host as a process of its own, in a folder that has what the supervisor would have put there. */
export class HostProcess implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "rs-block-"));
  readonly runtime = runtimePaths(this.folder);
  readonly host: VolumeHost;
  readonly #rpc: RpcClient;
  readonly #readyLimitMs: number;
  #child: ChildProcess | undefined;

  /** `readyLimitMs`: how long a start may take, on machines that are only emulated. */
  constructor(readyLimitMs = READY_LIMIT_MS) {
    this.#readyLimitMs = readyLimitMs;
    const key = randomBytes(32);
    mkdirSync(this.runtime.socketDir, { recursive: true, mode: 0o700 });
    writeFileSync(this.runtime.clusterKey, key.toString("hex"), { mode: 0o600 });
    writeFileSync(this.runtime.clusterId, randomUUID());
    const portOffset = 10_000 + Math.floor(Math.random() * 30_000);
    writeFileSync(this.runtime.clusterToml, `port_offset = ${portOffset}\n`);
    this.#rpc = new RpcClient(this.runtime.socket(BLOCK_HOST_SOCKET), key);
    this.host = createVolumeHostClient(this.#rpc);
  }

  async start(): Promise<void> {
    const child = fork(MAIN, ["--data", this.folder], {
      detached: true,
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    this.#child = child;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the block host does not get ready")), this.#readyLimitMs);
      child.once("message", (message) => {
        clearTimeout(timer);
        if (typeof message === "object" && message !== null && "ready" in message) resolve();
        else reject(new Error(`the block host says ${JSON.stringify(message)}`));
      });
      child.once("exit", (code) => reject(new Error(`the block host ended with ${code}`)));
    });
  }

  /** SIGKILL; daemons go on. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async newVolume(sizeBytes: number): Promise<string> {
    const volumeId = randomUUID();
    const [pool] = await this.host.pools();
    await this.host.createVolume({ volumeId, pool: pool?.pool ?? "", sizeBytes, source: { kind: "none" } });
    return volumeId;
  }

  async daemonOf(volumeId: string): Promise<number> {
    const found = (await this.host.exports()).find((one) => one.volumeId === volumeId);
    if (found === undefined) throw new Error(`volume ${volumeId} is not served`);
    return found.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.#rpc[Symbol.dispose]();
    await endFromAbove(exportProcesses(this.runtime), 5000);
    for (const path of [this.folder, this.runtime.socketDir]) rmSync(path, { recursive: true, force: true });
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }
}
