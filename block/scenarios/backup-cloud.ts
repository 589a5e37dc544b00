import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { readClusterKey } from "../../common/cluster-key.ts";
import { signalProcess, startTimeOf, waitUntilEnded } from "../../common/process-identity.ts";
import { RpcClient } from "../../common/rpc/client.ts";
import { runtimePaths } from "../../common/runtime-paths.ts";
import { sleep } from "../../common/worker.ts";
import { adminSession } from "../../identity/scenarios/cloud-session.ts";
import { TestInstallation } from "../../scripts/scenarios/installation.ts";
import { createVolumeHostClient } from "../client.ts";
import { uriOf } from "../host/test-host.ts";
import type { VolumeHost } from "../volume-host.ts";
import { BLOCK_HOST_SOCKET } from "../wire.ts";

const run = promisify(execFile);
/** Nothing takes longer, however loaded the machine is. */
const LIMIT_MS = 240_000;
const LOOK_MS = 50;
const KILLED_LIMIT_MS = 10_000;
const OUTPUT_LIMIT_BYTES = 1024 * 1024;

export type Thing = Readonly<Record<string, unknown>>;

/** A real installation with the object and the block service, and what tests of backups do with it over its public port and its host's socket. */
export class BackupCloud implements AsyncDisposable {
  readonly installation = new TestInstallation(["--only", "object,block"]);
  readonly paths = runtimePaths(this.installation.folder);
  #session: ReturnType<typeof adminSession> | undefined;

  /** `table`: lines of `[block]` in cluster.toml. */
  async up(...table: readonly string[]): Promise<void> {
    if (table.length > 0)
      writeFileSync(join(this.installation.folder, "cluster.toml"), ["[block]", ...table, ""].join("\n"));
    await this.installation.up();
  }

  async ask(method: string, path: string, body?: object): Promise<Thing> {
    this.#session ??= adminSession(this.installation.folder);
    const { token } = await this.#session;
    const answer = await fetch(`${String(this.installation.ready().endpoints["block"])}${path}`, {
      method,
      headers: { "x-auth-token": token, "openstack-api-version": "volume 3.56", "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (answer.status === 404) return { status: "gone" };
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text === "" ? {} : (JSON.parse(text) as Thing);
  }

  /** Of what is shown at the path; `gone` where that is not there. */
  async statusOf(path: string): Promise<unknown> {
    const shown = await this.ask("GET", path);
    const [only = shown] = Object.values(shown);
    return shown["status"] ?? (only as Thing)["status"];
  }

  /** Resolves once it has the status. Rejects where it is in error instead. */
  async until(path: string, status: string): Promise<void> {
    let last: unknown;
    await this.untilTrue(`${path} is ${status}`, async () => {
      last = await this.statusOf(path);
      if (last !== status && String(last).startsWith("error")) throw new Error(`${path} is ${String(last)}`);
      return last === status;
    });
  }

  async untilTrue(what: string, isTrue: () => Promise<boolean> | boolean): Promise<void> {
    for (const deadline = performance.now() + LIMIT_MS; !(await isTrue()); await sleep(LOOK_MS))
      if (performance.now() > deadline) throw new Error(`it never comes true that ${what}`);
  }

  async newVolume(): Promise<string> {
    const { volume } = (await this.ask("POST", "/volumes", { volume: { size: 1 } })) as { volume: { id: string } };
    await this.until(`/volumes/${volume.id}`, "available");
    return volume.id;
  }

  async newBackup(fields: object): Promise<string> {
    const { backup } = (await this.ask("POST", "/backups", { backup: fields })) as { backup: { id: string } };
    return backup.id;
  }

  /** Begins it; resolves with the new volume's id. */
  async restore(backupId: string): Promise<string> {
    const answer = await this.ask("POST", `/backups/${backupId}/restore`, { restore: {} });
    return String((answer["restore"] as Thing)["volume_id"]);
  }

  async restored(backupId: string): Promise<string> {
    const volumeId = await this.restore(backupId);
    await this.until(`/volumes/${volumeId}`, "available");
    return volumeId;
  }

  async remove(path: string): Promise<void> {
    await this.ask("DELETE", path);
    await this.until(path, "gone");
  }

  /** Asks the block host itself. */
  async withHost<Result>(action: (host: VolumeHost) => Promise<Result>): Promise<Result> {
    using rpc = new RpcClient(this.paths.socket(BLOCK_HOST_SOCKET), readClusterKey(this.paths));
    return await action(createVolumeHostClient(rpc));
  }

  /** Opens the volume as an operator of this machine does, until `close`; resolves with where. */
  open(id: string): Promise<string> {
    const wanted = { volumeId: id, attachmentId: id, transport: "unix", isReadOnly: false } as const;
    return this.withHost(async (host) => uriOf(await host.exportVolume(wanted)));
  }

  close(id: string): Promise<void> {
    return this.withHost((host) => host.unexportVolume(id, id));
  }

  async opened<Result>(id: string, action: (uri: string) => Promise<Result>): Promise<Result> {
    const uri = await this.open(id);
    try {
      return await action(uri);
    } finally {
      await this.close(id);
    }
  }

  write(id: string, ...writes: readonly Write[]): Promise<void> {
    return this.opened(id, (uri) => writeTo(uri, ...writes));
  }

  digestOf(id: string): Promise<string> {
    return this.opened(id, digestFrom);
  }

  /** One number that a query of the block service's database gives. */
  count(query: string, ...values: readonly string[]): number {
    const path = join(this.installation.folder, "block", "block.db");
    const database = new DatabaseSync(path, { readOnly: true, timeout: 10_000 });
    try {
      return Number(Object.values(database.prepare(query).get(...values) ?? {})[0]);
    } finally {
      database.close();
    }
  }

  /** From now on nobody gets at an object, until the next `crash`: what needs one waits, and does not end before everything is killed. */
  stopObjects(): void {
    const { processes } = this.installation.ready();
    const proxies = processes.filter(({ role }) => role === "proxy");
    if (proxies.length === 0) throw new Error("there is no proxy to be stopped");
    for (const { pid, startTime } of proxies) if (startTimeOf(pid) === startTime) process.kill(pid, "SIGSTOP");
  }

  /** SIGKILL of everything at once, also of daemons that ready.json does not name yet, and a start. */
  async crash(): Promise<void> {
    const daemons = await this.withHost((host) => host.exports());
    await this.installation.killAll();
    for (const daemon of daemons) signalProcess(daemon, "SIGKILL");
    if (!(await waitUntilEnded([...daemons], KILLED_LIMIT_MS))) throw new Error("killed daemons live on");
    this.#session = undefined;
    await this.installation.up();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.installation[Symbol.asyncDispose]();
  }
}

type Write = readonly [offset: number, bytes: Buffer];

/** Writes with QEMU's own client, which flushes before it ends. */
export const writeTo = async (uri: string, ...writes: readonly Write[]): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), "rs-pattern-"));
  try {
    const commands = writes.flatMap(([offset, bytes], index) => {
      const file = join(folder, String(index));
      writeFileSync(file, bytes);
      return ["-c", `write -q -s ${file} ${offset} ${bytes.length}`];
    });
    await run("qemu-io", ["-f", "raw", ...commands, "-c", "flush", uri]);
  } finally {
    rmSync(folder, { recursive: true });
  }
};

/**
 * SHA-256 of where the volume is not zero, in blocks of 4 KiB, and of what is there: the same for the same bytes, whatever of its zeros takes space. A copy
 * whose zeros are holes is what is read, so that a volume that is mostly zeros costs little.
 */
export const digestFrom = async (uri: string): Promise<string> => {
  const folder = mkdtempSync(join(tmpdir(), "rs-digest-"));
  try {
    await run("nbdcopy", [uri, join(folder, "bytes")]);
    const command =
      'set -o pipefail; tar --sparse --format=gnu --mtime=@0 --owner=0 --group=0 -cf - -C "$0" bytes | sha256sum';
    return (await run("bash", ["-c", command, folder], { maxBuffer: OUTPUT_LIMIT_BYTES })).stdout.slice(0, 64);
  } finally {
    rmSync(folder, { recursive: true });
  }
};
