import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { signalProcess, waitUntilEnded } from "../common/process-identity.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { freePortOffset } from "../common/free-ports.ts";
import { machineFacts } from "./report.ts";
import { commitOf } from "./ringstead-contender.ts";

/**
 * What an incremental backup of a volume costs, from the API call to `available`, and how many bytes it reads and sends:
 *
 *     runs        1 MiB changed in 16 runs of 64 KiB at random places
 *     killed      the same, written before a SIGKILL of every process
 *     scattered   256 writes of 4 KiB at random places
 *
 * `node bench/backup.ts [--gib N] [--written-mib N] [--rounds N] [--folder DIR]`: a volume of so many GiB, of which so many MiB were written before the
 * first, whole backup, which is printed too.
 */
const { values } = parseArgs({
  options: {
    gib: { type: "string", default: "20" },
    "written-mib": { type: "string", default: "1024" },
    rounds: { type: "string", default: "3" },
    folder: { type: "string", default: tmpdir() },
  },
});
const CHECKOUT = resolve(import.meta.dirname, "..");
const MIB = 1024 * 1024;
const KIB = 1024;
/** Patterns on the disk at once. */
const WRITES_AT_ONCE = 32;
const LIMIT_MS = 1_800_000;
const run = promisify(execFile);
const folder = mkdtempSync(join(values.folder, "ringstead-backup-bench-"));
const sizeBytes = Number(values.gib) * 1024 * MIB;
const writtenMib = Number(values["written-mib"]);

type Ready = {
  readonly endpoints: Readonly<Record<string, string>>;
  readonly admin: { readonly username: string; readonly password: string; readonly project: string };
  readonly processes: readonly { readonly pid: number; readonly startTime: number; readonly role: string }[];
};
const offset = await freePortOffset();
const ready = (): Ready => JSON.parse(readFileSync(join(folder, "ready.json"), "utf8")) as Ready;
const up = async (): Promise<void> => {
  const words = ["--data", folder, "--detach", "--port-offset", String(offset), "--only", "object,block"];
  await run(join(CHECKOUT, "scripts", "start"), words);
};

const tokenOf = async (): Promise<string> => {
  const { endpoints, admin } = ready();
  const domain = { id: "default" };
  const user = { name: admin.username, domain, password: admin.password };
  const scope = { project: { name: admin.project, domain } };
  const auth = { identity: { methods: ["password"], password: { user } }, scope };
  const answer = await fetch(`${endpoints["identity"]}/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ auth }),
  });
  return answer.headers.get("x-subject-token") ?? "";
};
let token = "";
const ask = async <Body>(method: string, path: string, body?: object): Promise<Body> => {
  const answer = await fetch(`${ready().endpoints["block"]}${path}`, {
    method,
    headers: { "x-auth-token": token, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as Body;
};
const until = async (path: string, name: string): Promise<void> => {
  for (const endMs = performance.now() + LIMIT_MS; performance.now() < endMs; await sleep(20)) {
    const found = (await ask<Record<string, { status: string; fail_reason?: string }>>("GET", path))[name];
    const { status, fail_reason: why = "" } = found ?? { status: "gone" };
    if (status === "available") return;
    if (status.startsWith("error")) throw new Error(`${path} is ${status}: ${why}`);
  }
  throw new Error(`${path} takes too long`);
};

const ringstead = async (...words: readonly string[]): Promise<string> =>
  (await run(join(CHECKOUT, "scripts", "ringstead"), [...words, "--data", folder])).stdout.trim();

/** Writes over NBD, flushed. */
const write = async (id: string, writes: readonly (readonly [at: number, bytes: number])[]): Promise<void> => {
  const uri = await ringstead("volume", "export", id, "--protocol", "nbd");
  const patterns = join(folder, "patterns");
  mkdirSync(patterns, { recursive: true });
  for (let first = 0; first < writes.length; first += WRITES_AT_ONCE) {
    const commands = writes.slice(first, first + WRITES_AT_ONCE).flatMap(([at, bytes], index) => {
      const file = join(patterns, String(index));
      // No two are alike: what was stored already is not sent.
      writeFileSync(file, randomBytes(bytes));
      return ["-c", `write -q -s ${file} ${at} ${bytes}`];
    });
    await run("qemu-io", ["-f", "raw", ...commands, "-c", "flush", uri]);
  }
  await ringstead("volume", "unexport", id);
};

type Copied = { readonly time: string; readonly readBytes: number; readonly sentBytes: number };

/** What the log says of the copy. */
const figuresOf = async (backupId: string): Promise<Copied> => {
  for (const endMs = performance.now() + 10_000; performance.now() < endMs; await sleep(50)) {
    const lines = readFileSync(runtimePaths(folder).logFile("control"), "utf8").split("\n");
    const line = lines.find((one) => one.includes("a volume was copied") && one.includes(backupId));
    if (line !== undefined) return JSON.parse(line) as Copied;
  }
  throw new Error(`the log says nothing of backup ${backupId}`);
};

const backUp = async (id: string, incremental: boolean): Promise<string> => {
  const [startMs, startedAtMs] = [performance.now(), Date.now()];
  const body = { backup: { volume_id: id, incremental } };
  const { backup } = await ask<{ backup: { id: string } }>("POST", "/backups", body);
  await until(`/backups/${backup.id}`, "backup");
  const seconds = (performance.now() - startMs) / 1000;
  const { time, readBytes, sentBytes } = await figuresOf(backup.id);
  const copied = (Date.parse(time) - startedAtMs) / 1000;
  return `${seconds.toFixed(2)} s (copied after ${copied.toFixed(2)}), ${(readBytes / MIB).toFixed(2)} MiB read, ${(sentBytes / MIB).toFixed(2)} MiB sent`;
};

/** Places in what was written and beyond it, each in an aligned block of `grainBytes`. */
const places = (count: number, grainBytes: number): readonly number[] =>
  Array.from({ length: count }, () => Math.floor((Math.random() * sizeBytes) / grainBytes) * grainBytes);

const killAll = async (): Promise<void> => {
  const { processes } = ready();
  const supervisorFirst = processes.toSorted(
    (a, b) => Number(b.role === "supervisor") - Number(a.role === "supervisor"),
  );
  for (const { pid, startTime } of supervisorFirst) signalProcess({ pid, startTime }, "SIGKILL");
  if (!(await waitUntilEnded(supervisorFirst, 10_000))) throw new Error("killed processes live on");
  await up();
  token = await tokenOf();
};

try {
  await up();
  console.log(JSON.stringify({ commit: commitOf(), machine: machineFacts() }));
  token = await tokenOf();
  const body = { volume: { size: Number(values.gib) } };
  const { volume } = await ask<{ volume: { id: string } }>("POST", "/volumes", body);
  await until(`/volumes/${volume.id}`, "volume");
  await write(
    volume.id,
    Array.from({ length: writtenMib / 8 }, (_, index) => [index * 8 * MIB, 8 * MIB] as const),
  );
  console.log(`whole, ${writtenMib} MiB written of ${values.gib} GiB: ${await backUp(volume.id, false)}`);
  for (let round = 1; round <= Number(values.rounds); round++) {
    const sixteen = () => places(16, 64 * KIB).map((at) => [at, 64 * KIB] as const);
    await write(volume.id, sixteen());
    console.log(`runs ${round}: ${await backUp(volume.id, true)}`);
    await write(volume.id, sixteen());
    await killAll();
    console.log(`killed ${round}: ${await backUp(volume.id, true)}`);
    await write(
      volume.id,
      places(256, 4 * KIB).map((at) => [at, 4 * KIB] as const),
    );
    console.log(`scattered ${round}: ${await backUp(volume.id, true)}`);
  }
} finally {
  await ringstead("down");
  rmSync(folder, { recursive: true, force: true });
}
