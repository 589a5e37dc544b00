import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type DatabaseServer, databaseServerOf } from "./database-config.ts";

const INSTALLED = "/usr/lib/postgresql";
const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 10_000;
const POLL_MS = 10;
const USER = "ringstead";
/** Every test that uses this server opens a handle or two of its own. */
const CONNECTIONS_MAX = 100;

/** Of the newest version that is installed. */
const programFolder = (): string | undefined => {
  const versions = existsSync(INSTALLED) ? readdirSync(INSTALLED) : [];
  const newest = versions.sort((a, b) => Number(b) - Number(a))[0];
  return newest === undefined ? undefined : join(INSTALLED, newest, "bin");
};

/** Why no PostgreSQL can be started here; undefined where it can. Debian's package `postgresql` is on the list of `scripts/`. */
export const whyNoPostgres = (): string | undefined => {
  const folder = programFolder();
  return folder !== undefined && existsSync(join(folder, "initdb")) ? undefined : `there is no ${INSTALLED}`;
};

/** PostgreSQL refuses to run as root; the package brings a user. The server ends with the process that started it. */
const asServerUser = (program: string): [command: string, ...leading: string[]] => {
  const becoming = process.getuid?.() === 0 ? ["--reuid=postgres", "--regid=postgres", "--init-groups"] : [];
  return ["setpriv", ...becoming, "--pdeathsig=INT", program];
};

const idOf = (kind: "-u" | "-g"): number => Number(execFileSync("id", [kind, "postgres"], { encoding: "utf8" }));

type PostgresFixtureOptions = {
  /** Makes it listen on a port of 127.0.0.1 too, with this certificate. */
  readonly tls?: { readonly port: number; readonly certFile: string; readonly keyFile: string };
  /** False where no test ends the server: then nothing waits for the disk. */
  readonly isDurable?: boolean;
};

const PASSWORD_FILE = "password";

/** The table `[database]` of cluster.toml for a database of the fixture in `folder`. */
export const databaseTable = (folder: string, name = "postgres") => ({
  url: `postgresql:///${name}?host=${folder}&user=${USER}`,
  password_file: join(folder, PASSWORD_FILE),
});

/** A PostgreSQL server of a test, on a Unix socket in a folder that goes with it. Any number run side by side. */
export class PostgresFixture implements AsyncDisposable {
  readonly folder: string;
  readonly #programs: string;
  readonly #options: PostgresFixtureOptions;
  #process: ChildProcess | undefined;

  private constructor(folder: string, programs: string, options: PostgresFixtureOptions) {
    this.folder = folder;
    this.#programs = programs;
    this.#options = options;
  }

  /** Requires: `whyNoPostgres()` is undefined. */
  static async start(options: PostgresFixtureOptions = {}): Promise<PostgresFixture> {
    const programs = programFolder();
    if (programs === undefined) throw new Error(whyNoPostgres());
    const folder = mkdtempSync(join(tmpdir(), "ringstead-pg-"));
    const fixture = new PostgresFixture(folder, programs, options);
    try {
      writeFileSync(fixture.passwordFile, "a test's password\n", { mode: 0o600 });
      fixture.#own(folder, fixture.passwordFile);
      chmodSync(folder, 0o700);
      const secret = ["--auth=scram-sha-256", `--username=${USER}`, `--pwfile=${fixture.passwordFile}`];
      const text = ["--encoding=UTF8", "--locale=C.UTF-8"];
      const [command, ...leading] = asServerUser(join(programs, "initdb"));
      // Not synced: what is made here is no longer of use once the machine has stopped.
      execFileSync(command, [...leading, "--no-sync", ...secret, ...text, "-D", fixture.#data], {
        stdio: "pipe",
        cwd: folder,
      });
      await fixture.run();
    } catch (thrown) {
      await fixture[Symbol.asyncDispose]();
      throw thrown;
    }
    return fixture;
  }

  get passwordFile(): string {
    return join(this.folder, PASSWORD_FILE);
  }

  get #data(): string {
    return join(this.folder, "data");
  }

  /** How a client's cluster.toml names it. */
  server(poolSize = 10): DatabaseServer {
    return databaseServerOf({ ...databaseTable(this.folder), pool_size: poolSize });
  }

  /** Starts the server and resolves when it answers. Requires: it does not run. */
  async run(): Promise<void> {
    const log = openSync(join(this.folder, "log"), "a");
    const [command, ...leading] = asServerUser(join(this.#programs, "postgres"));
    const settings = [
      `unix_socket_directories=${this.folder}`,
      `fsync=${this.#options.isDurable === false ? "off" : "on"}`,
      `max_connections=${CONNECTIONS_MAX}`,
      ...this.#listening(),
    ];
    const options = settings.flatMap((setting) => ["-c", setting]);
    const server = spawn(command, [...leading, "-D", this.#data, ...options], {
      stdio: ["ignore", log, log],
      cwd: this.folder,
    });
    closeSync(log);
    this.#process = server;
    for (let waitedMs = 0; !this.#isReady(); waitedMs += POLL_MS) {
      if (waitedMs > START_LIMIT_MS || server.exitCode !== null) {
        throw new Error(`PostgreSQL did not start: ${readFileSync(join(this.folder, "log"), "utf8")}`);
      }
      await sleep(POLL_MS);
    }
  }

  #listening(): string[] {
    const { tls } = this.#options;
    if (tls === undefined) return ["listen_addresses="];
    // The server reads only a key that is its own.
    const [cert, key] = [join(this.folder, "cert.pem"), join(this.folder, "key.pem")];
    copyFileSync(tls.certFile, cert);
    copyFileSync(tls.keyFile, key);
    chmodSync(key, 0o600);
    this.#own(cert, key);
    const port = `port=${tls.port}`;
    return ["listen_addresses=127.0.0.1", port, "ssl=on", `ssl_cert_file=${cert}`, `ssl_key_file=${key}`];
  }

  #own(...paths: string[]): void {
    if (process.getuid?.() !== 0) return;
    const [user, group] = [idOf("-u"), idOf("-g")];
    for (const path of paths) chownSync(path, user, group);
  }

  /** Stops the process that accepts connections, as a machine that no longer answers, or lets it go on. */
  pause(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process?.kill(signal);
  }

  /** The eighth line of its pid file says so (src/include/utils/pidfile.h). */
  #isReady(): boolean {
    const path = join(this.#data, "postmaster.pid");
    if (!existsSync(path)) return false;
    const lines = readFileSync(path, "utf8").split("\n");
    return Number(lines[0]) === this.#process?.pid && lines[7]?.trim() === "ready";
  }

  /** Ends it: SIGINT as an administrator does, SIGQUIT as a crash, from which it recovers at its next start. */
  async stop(signal: "SIGINT" | "SIGQUIT" = "SIGINT"): Promise<void> {
    const server = this.#process;
    this.#process = undefined;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, "exit");
    server.kill(signal);
    const late = setTimeout(() => server.kill("SIGKILL"), STOP_LIMIT_MS);
    await ended;
    clearTimeout(late);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("SIGQUIT");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
