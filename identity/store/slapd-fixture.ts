import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePorts } from "../../common/free-ports.ts";

const PROGRAM = "/usr/sbin/slapd";
const START_LIMIT_MS = 15_000;
const STOP_LIMIT_MS = 5_000;
const POLL_MS = 20;
export const LDAP_SUFFIX = "dc=example,dc=org";
export const LDAP_ADMIN = { dn: `cn=manager,${LDAP_SUFFIX}`, password: "a manager's password" };

/** Why no directory can be started here; undefined where it can. Debian's package `slapd` is on the list of `scripts/`. */
export const whyNoSlapd = (): string | undefined => (existsSync(PROGRAM) ? undefined : `there is no ${PROGRAM}`);

const accepts = async (port: number): Promise<boolean> => {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
};

/** Where a server's certificate and key are, both PEM, self-signed. */
export type SlapdTls = { readonly certFile: string; readonly keyFile: string };

/** An OpenLDAP server of a test, on a port of its own with a folder of its own. */
export class SlapdFixture implements AsyncDisposable {
  readonly port: number;
  readonly #folder: string;
  #process: ChildProcess | undefined;

  private constructor(port: number, folder: string) {
    this.port = port;
    this.#folder = folder;
  }

  /** `ldif`: what is in it. Requires: `whyNoSlapd()` is undefined. */
  static async start(ldif: string, tls?: SlapdTls): Promise<SlapdFixture> {
    const fixture = new SlapdFixture(await freePorts(1), mkdtempSync(join(tmpdir(), "ringstead-slapd-")));
    try {
      fixture.#prepare(ldif, tls);
      await fixture.run();
    } catch (thrown) {
      await fixture[Symbol.asyncDispose]();
      throw thrown;
    }
    return fixture;
  }

  get url(): string {
    return `ldap://127.0.0.1:${this.port}`;
  }

  get #configuration(): string {
    return join(this.#folder, "slapd.conf");
  }

  #prepare(ldif: string, tls: SlapdTls | undefined): void {
    const data = join(this.#folder, "data");
    mkdirSync(data);
    const lines = [
      ...["core", "cosine", "inetorgperson"].map((name) => `include /etc/ldap/schema/${name}.schema`),
      `pidfile ${join(this.#folder, "pid")}`,
      "modulepath /usr/lib/ldap",
      "moduleload back_mdb",
      ...(tls === undefined ? [] : [`TLSCertificateFile ${tls.certFile}`, `TLSCertificateKeyFile ${tls.keyFile}`]),
      // As servers are set up: nobody reads without a name, and passwords are for logging in only.
      "disallow bind_anon",
      "sizelimit size.soft=500 size.hard=500 size.prtotal=unlimited",
      "database mdb",
      `suffix "${LDAP_SUFFIX}"`,
      `rootdn "${LDAP_ADMIN.dn}"`,
      `rootpw "${LDAP_ADMIN.password}"`,
      `directory ${data}`,
      "access to attrs=userPassword by anonymous auth by * none",
      "access to * by users read",
    ];
    writeFileSync(this.#configuration, `${lines.join("\n")}\n`, { mode: 0o600 });
    const entries = join(this.#folder, "entries.ldif");
    writeFileSync(entries, ldif, { mode: 0o600 });
    execFileSync("/usr/sbin/slapadd", ["-q", "-f", this.#configuration, "-l", entries], { stdio: "pipe" });
  }

  /** Starts the server and resolves when it accepts connections. Requires: it does not run. */
  async run(): Promise<void> {
    // With a level of messages it stays in front, so that it is a child that can be ended.
    const server = spawn(PROGRAM, ["-f", this.#configuration, "-h", this.url, "-d", "0"], { stdio: "ignore" });
    this.#process = server;
    for (let waitedMs = 0; !(await accepts(this.port)); waitedMs += POLL_MS) {
      if (waitedMs > START_LIMIT_MS || server.exitCode !== null) throw new Error("slapd did not start");
      await sleep(POLL_MS);
    }
  }

  /** Stops it where it is, as a machine that no longer answers, or lets it go on. */
  pause(signal: "SIGSTOP" | "SIGCONT"): void {
    this.#process?.kill(signal);
  }

  async stop(): Promise<void> {
    const server = this.#process;
    this.#process = undefined;
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, "exit");
    server.kill("SIGTERM");
    const late = setTimeout(() => server.kill("SIGKILL"), STOP_LIMIT_MS);
    await ended;
    clearTimeout(late);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
