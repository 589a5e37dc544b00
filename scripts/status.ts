import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { type ClusterConfig, LOCAL_NODE, loadConfig, portOf } from "../common/config.ts";
import { messageOf } from "../common/errors.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { version } from "../common/version.ts";
import { loadRing } from "../ring/ring-file.ts";
import { deviceFindings, repairFindings } from "./device-findings.ts";
import { type DeviceStatus, devicesOf } from "./device-status.ts";
import { type Finding, inOneLine, problem } from "./finding.ts";
import { ALL_ROLES, unavailableServices } from "./installation.ts";
import { isRunning } from "../common/process-identity.ts";
import type { Unavailable } from "./ready-file.ts";
import type { ProcessSnapshot } from "./supervised-process.ts";
import { refusedPeers } from "./refused-peers.ts";
import { refusedWrites } from "./refused-writes.ts";
import { scrubState } from "./scrub-state.ts";
import { type AdoptedProcess, keptProcesses, readSupervisorState, type SupervisorState } from "./supervisor.ts";
import { lockHolder } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const ANSWER_LIMIT_MS = 3_000;

type ServiceStatus = {
  readonly service: string;
  readonly state: "answers" | "silent";
  readonly reason: string | undefined;
};

/** What `status --json` prints. */
export type Status = {
  readonly state: "ok" | "degraded" | "down";
  readonly version: string;
  readonly data: string;
  readonly supervisor: { readonly pid: number; readonly since: string } | undefined;
  readonly processes: readonly ProcessSnapshot[];
  /** Exports and guests, adopted or left running. */
  readonly kept: readonly AdoptedProcess[];
  readonly devices: readonly DeviceStatus[];
  readonly services: readonly ServiceStatus[];
  readonly unavailable: readonly Unavailable[];
  /** What makes it degraded, with what is being done or to be done. */
  readonly problems: readonly string[];
  /** What is well now but should be known. */
  readonly warnings: readonly string[];
};

/** More than any service says of why it cannot. */
const REASON_MAX_BYTES = 4_096;

/** What a service says of its failure in OpenStack's shape, such as that its database is away. */
const saidBy = (body: string): string => {
  try {
    const value: unknown = JSON.parse(body);
    const message: unknown = (value as { error?: { message?: unknown } } | null)?.error?.message;
    return typeof message === "string" ? `: ${message}` : "";
  } catch {
    return "";
  }
};

/** Asks a public port for `path`; undefined if it answers without a server error, else why not. */
const silence = (
  config: ClusterConfig,
  port: "identity" | "object" | "block",
  path: string,
): Promise<string | undefined> =>
  new Promise((resolve) => {
    const unspecified: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" };
    const host = unspecified[config.bind] ?? config.bind;
    const ask = config.tlsCert === undefined ? httpRequest : httpsRequest;
    // Only whether it answers is asked, on this machine; whose name the certificate has does not matter for that.
    const asked = ask(
      { host, port: portOf(config, port), path, timeout: ANSWER_LIMIT_MS, rejectUnauthorized: false },
      (response) => {
        const status = response.statusCode ?? 0;
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (text: string) => {
          if (body.length < REASON_MAX_BYTES) body += text;
        });
        response.on("end", () => resolve(status < 500 ? undefined : `answers ${status}${saidBy(body)}`));
      },
    );
    asked.on("timeout", () => asked.destroy(new Error(`no answer within ${ANSWER_LIMIT_MS} ms`)));
    asked.on("error", (error) => resolve(error.message));
    asked.end();
  });

const servicesOf = async (config: ClusterConfig, processes: readonly ProcessSnapshot[]): Promise<ServiceStatus[]> => {
  const roles = new Set(processes.flatMap(({ role }) => role.split(",")));
  const asked = [
    ...(roles.has("identity") ? [{ service: "identity", port: "identity", path: "/healthcheck" } as const] : []),
    ...(roles.has("block-api") ? [{ service: "block", port: "block", path: "/healthcheck" } as const] : []),
    ...(roles.has("proxy") ? [{ service: "object", port: "object", path: "/healthcheck" } as const] : []),
  ];
  return Promise.all(
    asked.map(async ({ service, port, path }) => {
      const reason = await silence(config, port, path);
      return { service, state: reason === undefined ? ("answers" as const) : ("silent" as const), reason };
    }),
  );
};

const processFindings = (one: ProcessSnapshot): Finding[] => {
  if (one.state === "ready" && one.pid !== undefined && isRunning({ pid: one.pid, startTime: one.startTime ?? 0 }))
    return [];
  const why = one.lastExit === undefined ? "" : ` (it ${one.lastExit.reason}, at ${one.lastExit.at})`;
  return [
    problem(
      `process ${one.name} is ${one.state} since ${one.since}${why}`,
      CONSEQUENCE_OF[one.role] ?? "what it does is not done",
      "the supervisor restarts it, log in DIR/logs",
    ),
  ];
};

/** Of a process that does not run. */
const CONSEQUENCE_OF: Readonly<Record<string, string>> = {
  identity: "nobody gets a new token; tokens and keys that are known go on for revocation_grace_seconds",
  "identity,block-api":
    "nobody gets a new token, tokens and keys that are known go on for revocation_grace_seconds; volumes serve, but none is made or changed",
  "block-host": "volumes serve, but none is made, changed or attached",
  proxy: "no request for objects is answered",
  "storage-node": "its devices answer nothing; reads and writes go on where a quorum of others is there",
};

const writeFindings = async (
  paths: RuntimePaths,
  config: ClusterConfig,
  devices: readonly DeviceStatus[],
): Promise<Finding[]> => {
  const consequence = "writes there are answered 503, and nothing of them is lost";
  try {
    const refused = await refusedWrites(paths, config, devices);
    return refused === undefined ? [] : [problem(refused.reason, consequence, refused.remedy)];
  } catch (thrown) {
    return [problem(messageOf(thrown), "nobody knows where replicas lie", "ringstead restore a backup of the rings")];
  }
};

/** Nodes of the object ring but for this one; a replica there is on another disk. */
const otherNodes = (paths: RuntimePaths, node: string): number => {
  try {
    const nodes = loadRing(paths.ringFile("object-0")).devices.flatMap((device) => device?.node ?? []);
    return new Set(nodes.filter((name) => name !== node)).size;
  } catch {
    return 0;
  }
};

/** Everything that is known without looking into files that are not there for it. */
export const statusOf = async (
  paths: RuntimePaths,
): Promise<{ readonly status: Status; readonly findings: readonly Finding[] }> => {
  const holder = lockHolder(paths.supervisorLock);
  const known: SupervisorState | undefined = readSupervisorState(paths);
  const isCurrent = holder !== undefined && known?.supervisor.pid === holder.pid;
  const processes = known?.processes ?? [];
  let config: ClusterConfig | undefined;
  const findings: Finding[] = [];
  try {
    config = loadConfig(paths.dataDir, known?.config.node ?? LOCAL_NODE);
  } catch (thrown) {
    findings.push(problem(messageOf(thrown), "the next start is refused", `put ${paths.clusterToml} right`));
  }
  const roles = known?.roles ?? ALL_ROLES;
  const isStorageNode = roles.includes("storage-node") && (known?.config.services.includes("object") ?? true);
  const storageNodes = processes.filter(({ role, state }) => isCurrent && role === "storage-node" && state === "ready");
  const names = storageNodes.map(({ processRole }) => processRole);
  const devices = isStorageNode ? await devicesOf(paths, config?.devices ?? [], names) : [];
  const services = config === undefined || !isCurrent ? [] : await servicesOf(config, processes);
  if (isCurrent) findings.push(...processes.flatMap(processFindings));
  findings.push(...deviceFindings(devices, config?.replicas ?? 1, otherNodes(paths, config?.node ?? LOCAL_NODE)));
  if (isCurrent && config !== undefined) findings.push(...(await writeFindings(paths, config, devices)));
  for (const { service, reason } of services) {
    if (reason === undefined) continue;
    const log = `see DIR/logs/${service === "object" ? "proxy" : "control"}.log`;
    findings.push(problem(`${service} does not answer: ${reason}`, "its clients get errors", log));
  }
  findings.push(...repairFindings(paths));
  const pages = processes.flatMap(({ state, processRole }) => (isCurrent && state === "ready" ? [processRole] : []));
  findings.push(...(await refusedPeers(paths, pages)));
  const linesOf = (severity: Finding["severity"]): string[] =>
    findings.filter((one) => one.severity === severity).map(inOneLine);
  const problems = linesOf("problem");
  const chosen = config === undefined || known === undefined ? config : { ...config, services: known.config.services };
  const status: Status = {
    state: isCurrent ? (problems.length === 0 ? "ok" : "degraded") : "down",
    version: version(),
    data: paths.dataDir,
    supervisor: isCurrent && known !== undefined ? { pid: known.supervisor.pid, since: known.startedAt } : undefined,
    processes: isCurrent ? processes : [],
    kept: keptProcesses(paths),
    devices,
    services,
    unavailable: chosen === undefined ? [] : unavailableServices(chosen, roles),
    problems,
    warnings: linesOf("warning"),
  };
  return { status, findings };
};

const gib = (bytes: number | undefined): string =>
  bytes === undefined ? "?" : `${(bytes / 1024 ** 3).toFixed(1)} GiB`;

/** A device without its filter works, but takes new names more slowly. */
export const keyFilterState = (figures: DeviceStatus["figures"]): string => {
  if (figures["is_key_filter_ready"] !== 0) return "";
  const failed = figures["key_filter_failed_scans"] ?? 0;
  return (
    `, key filter not ready (${figures["key_filter_scanned_keys"] ?? 0} keys scanned` +
    `${failed === 0 ? "" : `, ${failed} scans failed`})`
  );
};

const lines = (status: Status): string[] => [
  `Ringstead ${status.version} on ${status.data}: ${status.state}`,
  ...(status.supervisor === undefined
    ? []
    : [`supervisor    pid ${status.supervisor.pid}, since ${status.supervisor.since}`]),
  ...status.processes.map(
    ({ name, state, pid, since, restarts, retiring = [], lastExit }) =>
      `process       ${name.padEnd(13)} ${state.padEnd(8)} pid ${pid ?? "-"}, since ${since}, restarts ${restarts}` +
      (retiring.length === 0 ? "" : `, pid ${retiring.map((old) => old.pid).join(", ")} before it still ends`) +
      (lastExit === undefined ? "" : `, last ${lastExit.reason} at ${lastExit.at}`),
  ),
  ...status.kept.map(({ role, pid }) => `process       ${role.padEnd(13)} ${"kept".padEnd(8)} pid ${pid}`),
  ...status.devices.map(
    ({ device, path, state, freeBytes, sizeBytes, usedBytes, damagedReads, figures }) =>
      `device        ${device.padEnd(13)} ${state.padEnd(8)} ${path}, ${gib(freeBytes)} of ${gib(sizeBytes)} free` +
      (usedBytes === undefined ? "" : `, ${gib(usedBytes)} used`) +
      (damagedReads === undefined ? "" : `, ${damagedReads} damaged reads`) +
      keyFilterState(figures) +
      scrubState(figures),
  ),
  ...status.services.map(
    ({ service, state, reason }) => `service       ${service.padEnd(13)} ${state}${reason ? `: ${reason}` : ""}`,
  ),
  ...status.unavailable.map(
    ({ service, reason, remedy }) => `not running   ${service.padEnd(13)} ${reason}; ${remedy}`,
  ),
  ...status.problems.map((problem) => `PROBLEM       ${problem}`),
  ...status.warnings.map((warning) => `warning       ${warning}`),
];

/** `ringstead status [--json]`: exit 0 all well, 1 degraded, 2 down. */
export const status = async (argv: readonly string[]): Promise<number> => {
  const { values } = parseOptions(argv, { data: { type: "string" }, json: { type: "boolean" } });
  const { status: found } = await statusOf(runtimePaths(dataDirOf(values.data)));
  process.stdout.write(
    values.json === true ? `${JSON.stringify(found, undefined, 2)}\n` : `${lines(found).join("\n")}\n`,
  );
  return { ok: 0, degraded: 1, down: 2 }[found.state];
};
