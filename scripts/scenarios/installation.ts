import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { codeOf } from "../../common/errors.ts";
import { freePortOffset } from "../../common/free-ports.ts";
import { type ProcessIdentity, waitUntilEnded } from "../../common/process-identity.ts";
import { CHECKOUT } from "../up-options.ts";

const run = promisify(execFile);
const OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024;
const KILLED_LIMIT_MS = 10_000;

/** What tests read of ready.json. */
export type Ready = {
  readonly endpoints: Readonly<Record<string, string>>;
  readonly s3: { readonly accessKey: string; readonly secretKey: string };
  readonly swiftAuthV1: { readonly url: string; readonly user: string; readonly key: string };
  readonly processes: readonly (ProcessIdentity & { readonly role: string })[];
};

/** The environment without what points clients elsewhere: a CA bundle in it makes rclone refuse plain end points. */
export const cleanEnvironment = (): Record<string, string | undefined> => {
  const environment = { ...process.env };
  for (const name of Object.keys(environment))
    if (/^(OS|ST|SWIFT|RCLONE)_|_CA_BUNDLE$|_CA_CERTS$|^SSL_CERT_/.test(name)) delete environment[name];
  return environment;
};

/** A real installation in a folder of its own, started by the command that users run. */
export class TestInstallation implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ringstead-scenario-"));
  readonly #options: readonly string[];
  #portOffset: number | undefined;

  constructor(options: readonly string[] = []) {
    this.#options = options;
  }

  async up(): Promise<Ready> {
    this.#portOffset ??= await freePortOffset();
    const ports = ["--port-offset", String(this.#portOffset)];
    await run(join(CHECKOUT, "scripts", "start"), ["--data", this.folder, "--detach", ...ports, ...this.#options]);
    return this.ready();
  }

  ready(): Ready {
    return JSON.parse(readFileSync(join(this.folder, "ready.json"), "utf8"));
  }

  /** `ringstead COMMAND --data DIR`: its exit code and output. */
  async command(...words: readonly string[]): Promise<{ readonly code: number; readonly output: string }> {
    try {
      const { stdout } = await run(join(CHECKOUT, "scripts", "ringstead"), [...words, "--data", this.folder]);
      return { code: 0, output: stdout };
    } catch (error) {
      if (error instanceof Error && "code" in error && typeof error.code === "number") {
        return { code: error.code, output: "stdout" in error ? String(error.stdout) : "" };
      }
      throw error;
    }
  }

  /** SIGKILL to every process of the installation at once, the supervisor first, so that nothing can be tidied up; resolves once all are gone. */
  async killAll(): Promise<void> {
    const { processes } = this.ready();
    for (const { pid } of processes.toSorted(
      (a, b) => Number(b.role === "supervisor") - Number(a.role === "supervisor"),
    )) {
      try {
        process.kill(pid, "SIGKILL");
      } catch (error) {
        // Who serves a volume that nobody has any more ends by itself, and is listed for some time yet.
        if (codeOf(error) !== "ESRCH") throw error;
      }
    }
    if (!(await waitUntilEnded(processes, KILLED_LIMIT_MS))) throw new Error("killed processes live on");
  }

  /** SIGKILL of everything, and a start. */
  async crash(): Promise<Ready> {
    await this.killAll();
    return this.up();
  }

  /** Runs a real client with the v1 credentials in its environment; gives its standard output. */
  async client(command: string, words: readonly string[], folder: string): Promise<string> {
    const { url, user, key } = this.ready().swiftAuthV1;
    const environment = { ...cleanEnvironment(), ST_AUTH: url, ST_USER: user, ST_KEY: key };
    const options = { cwd: folder, env: environment, maxBuffer: OUTPUT_LIMIT_BYTES };
    return (await run(command, [...words], options)).stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.command("down");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
