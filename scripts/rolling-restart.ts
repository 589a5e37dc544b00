import { createServer, type ServerResponse } from "node:http";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { drain } from "../common/http/drain.ts";
import { listen } from "../common/http/listen.ts";
import type { Log } from "../common/log.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { type DeviceStatus, devicesOf } from "./device-status.ts";
import type { SupervisedProcess } from "./supervised-process.ts";

/** A device that was cleanly closed votes at once; for one that has to catch up first this is a night's patience. */
const VOTES_LIMIT_MS = 12 * 3_600_000;
const VOTES_POLL_MS = 200;
const DRAIN_MS = 1_000;

/** A line of the answer to `POST /restart`; the last one has `isDone`. */
export type RestartLine = { readonly text: string; readonly isDone?: boolean; readonly isGood?: boolean };

export type Restartable = {
  readonly paths: RuntimePaths;
  readonly devices: readonly string[];
  /** In the order in which they start. */
  readonly processes: readonly SupervisedProcess[];
  readonly log: Log;
};

const statesOf = async ({ paths, devices, processes }: Restartable): Promise<Map<string, DeviceStatus["state"]>> => {
  const names = processes.flatMap((one) => (one.role === "storage-node" ? [one.processRole] : []));
  return new Map((await devicesOf(paths, devices, names)).map(({ device, state }) => [device, state]));
};

const hasVotes = (state: DeviceStatus["state"] | undefined): boolean => state === "served" || state === "full";

/** Resolves once the devices that had their votes before have them again. */
const untilVoting = async (
  parts: Restartable,
  before: ReadonlyMap<string, DeviceStatus["state"]>,
  signal: AbortSignal,
): Promise<void> => {
  const deadline = performance.now() + VOTES_LIMIT_MS;
  for (;;) {
    const now = await statesOf(parts);
    const missing = [...before].flatMap(([device, state]) =>
      hasVotes(state) && !hasVotes(now.get(device)) ? [`${device} (${now.get(device) ?? "gone"})`] : [],
    );
    if (missing.length === 0) return;
    if (signal.aborted || performance.now() > deadline) {
      throw new RingsteadError(
        "no-votes",
        `after its restart not every device has its vote again: ${missing.join(", ")}; the next process is not restarted before it has`,
      );
    }
    await sleep(VOTES_POLL_MS, signal);
  }
};

/**
 * New processes in the place of those of `roles` (all where it is empty; a process's name does too), one after the other, the next when the one before is ready and
 * its devices vote. Stops at the first that fails. Throws RingsteadError `usage`, `not-ready`, `process-failed`, `no-votes`.
 */
export const restartInTurn = async (
  parts: Restartable,
  roles: readonly string[],
  tell: (text: string) => void,
  signal: AbortSignal,
): Promise<void> => {
  // One process may have several roles.
  const namesOf = ({ role, name }: SupervisedProcess): string[] => [...role.split(","), name];
  const known = new Set(parts.processes.flatMap(namesOf));
  for (const role of roles) {
    if (known.has(role)) continue;
    throw new RingsteadError("usage", `nothing here has the role ${role}: choose from ${[...known].join(",")}`);
  }
  const chosen = parts.processes.filter(
    (one) => roles.length === 0 || namesOf(one).some((name) => roles.includes(name)),
  );
  for (const one of chosen) {
    if (signal.aborted) throw new RingsteadError("not-ready", "the installation is being stopped");
    const started = performance.now();
    const before = one.role === "storage-node" ? await statesOf(parts) : new Map<string, DeviceStatus["state"]>();
    await one.restart();
    await untilVoting(parts, before, signal);
    const { pid, retiring = [] } = one.snapshot();
    const behind =
      retiring.length === 0 ? "" : `; pid ${retiring.map((old) => old.pid).join(", ")} still serves its connections`;
    tell(`${one.name} is new (pid ${pid ?? "?"}, ${Math.round(performance.now() - started)} ms)${behind}`);
  }
};

/** Takes orders of `ringstead restart` on the socket `supervisor`. */
export const serveRestarts = async (parts: Restartable, signal: AbortSignal): Promise<AsyncDisposable> => {
  let isUnderWay = false;
  const restart = async (roles: readonly string[], response: ServerResponse): Promise<void> => {
    const tell = (line: RestartLine): void => void response.write(`${JSON.stringify(line)}\n`);
    isUnderWay = true;
    parts.log.info("restarting", { roles });
    try {
      await restartInTurn(parts, roles, (text) => tell({ text }), signal);
      tell({ text: "restarted", isDone: true, isGood: true });
    } catch (thrown) {
      parts.log.error("the restart did not come to its end", { error: messageOf(thrown) });
      tell({ text: messageOf(thrown), isDone: true, isGood: false });
    } finally {
      isUnderWay = false;
      response.end();
    }
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://supervisor");
    if (request.method !== "POST" || url.pathname !== "/restart") {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { "content-type": "application/x-ndjson" });
    if (isUnderWay) {
      const line: RestartLine = { text: "a restart is under way already", isDone: true, isGood: false };
      response.end(`${JSON.stringify(line)}\n`);
      return;
    }
    void restart(url.searchParams.getAll("role"), response);
  });
  await listen(server, { path: parts.paths.socket("supervisor") });
  return { [Symbol.asyncDispose]: () => drain(server, DRAIN_MS) };
};
