import { spawn } from "node:child_process";
import { once } from "node:events";
import { onTestFinished } from "vitest";

/** QEMU's client, asked one thing after the other over one session. */
export class QemuSession {
  readonly #child;
  #said = "";

  constructor(uri: string) {
    this.#child = spawn("qemu-io", ["-t", "writeback", "-f", "raw", uri], { stdio: ["pipe", "pipe", "pipe"] });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.on("data", (chunk: Buffer) => (this.#said += chunk.toString()));
    onTestFinished(() => void this.#child.kill("SIGKILL"));
  }

  /** Resolves with what is said to it; rejects where it is an error. */
  async ask(command: string): Promise<void> {
    await this.#prompt();
    this.#said = "";
    this.#child.stdin.write(`${command}\n`);
    await this.#prompt();
    if (/failed|error/i.test(this.#said)) throw new Error(`${command}: ${this.#said}`);
  }

  async #prompt(): Promise<void> {
    while (!this.#said.endsWith("qemu-io> ")) {
      if (this.#child.exitCode !== null) throw new Error(`the client ended: ${this.#said}`);
      await once(this.#child.stdout, "data");
    }
  }
}
