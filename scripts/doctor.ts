import { X509Certificate } from "node:crypto";
import { existsSync, readFileSync, statfsSync, statSync } from "node:fs";
import { systemClock } from "../common/clock.ts";
import { type ClusterConfig, LOCAL_NODE, loadConfig } from "../common/config.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { type RuntimePaths, runtimePaths } from "../common/runtime-paths.ts";
import { examineIdentity } from "../identity/doctor.ts";
import { OTHER_BASE_REMEDY } from "../ring/base-ring.ts";
import { loadBuilder } from "../ring/builder-file.ts";
import { readMoveStatus } from "../ring/move-status.ts";
import { loadRing } from "../ring/ring-file.ts";
import { validateBuilder } from "../ring/validate.ts";
import type { DeviceStatus } from "./device-status.ts";
import { type Finding, problem, warning } from "./finding.ts";
import { RING_NAMES } from "./rings.ts";
import { type Status, statusOf } from "./status.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const HELP = `ringstead doctor [--data DIR] [--json]

Names each present problem, what it costs and what to do about it: what "ringstead status" knows of processes, devices and services,
and besides rings, scrubbing, certificates, space, permissions of secrets, and the identity service's rows and keys.
Exit 0: no problem (there may be warnings); 1: problems.
`;

const DAY_MS = 86_400_000;
const EXPIRY_WARNING_MS = 30 * DAY_MS;
const FREE_BYTES_MIN = 1024 ** 3;

type Subject = { readonly paths: RuntimePaths; readonly config: ClusterConfig; readonly status: Status };
type Check = {
  readonly name: string;
  readonly run: (subject: Subject) => readonly Finding[] | Promise<readonly Finding[]>;
};

const secretFindings = ({ paths }: Subject): Finding[] =>
  [paths.clusterKey, paths.adminPassword, paths.readyJson, paths.openrc, paths.cloudsYaml]
    .filter((path) => existsSync(path) && (statSync(path).mode & 0o077) !== 0)
    .map((path) =>
      problem(
        `others than its owner may read ${path}`,
        "who reads it may do what the administrator or a node may",
        `chmod go-rwx ${path}; and if others have accounts here, change what it holds`,
      ),
    );

const certificateFindings = ({ config }: Subject): Finding[] => {
  if (config.tlsCert === undefined) return [];
  const remedy = `put a new certificate at ${config.tlsCert}, then ./scripts/ringstead down and up`;
  const until = new X509Certificate(readFileSync(config.tlsCert)).validToDate;
  const leftMs = until.getTime() - systemClock.nowMs();
  const what = `the certificate ${config.tlsCert} ${leftMs < 0 ? "ended" : "ends"} at ${until.toISOString()}`;
  if (leftMs < 0) return [problem(what, "clients that check it refuse to connect", remedy)];
  return leftMs > EXPIRY_WARNING_MS ? [] : [warning(what, "clients that check it will refuse to connect", remedy)];
};

const ringFindings = ({ paths }: Subject): Finding[] =>
  RING_NAMES.flatMap((name) => {
    const builderPath = paths.builderFile(name);
    // Nodes that only serve have rings alone.
    if (!existsSync(builderPath)) return [];
    const ringPath = paths.ringFile(name);
    const ring = existsSync(ringPath) ? loadRing(ringPath) : undefined;
    return validateBuilder(loadBuilder(builderPath), ring, systemClock.nowMs()).map(({ isProblem, text }) =>
      (isProblem ? problem : warning)(
        `ring ${name}: ${text}`,
        isProblem ? "partitions may lack a replica, or be where nobody looks" : "devices fill unevenly",
        `./scripts/ringstead ring validate ${builderPath}, then ring rebalance`,
      ),
    );
  });

/** Undefined of what cannot be read as a ring. */
const versionOf = (path: string): number | undefined => {
  try {
    return loadRing(path).version;
  } catch (error) {
    if (error instanceof RingsteadError) return undefined;
    throw error;
  }
};

/** Of files that are rings: what is damaged is named by the check before, and a proxy takes a second to see that it is well again. */
const refusedRings = ({ paths }: Subject): Finding[] =>
  Object.entries(readMoveStatus(`${paths.ringsDir}/moves.json`)?.rings ?? {}).flatMap(
    ([name, { refusal, version }]) => {
      const present = refusal === undefined ? undefined : versionOf(paths.ringFile(name));
      if (refusal === undefined || present === undefined || present === version) return [];
      return [
        problem(
          `ring ${name}: the file that is there does not count, version ${version} does: ${refusal}`,
          "data stays where it is, or goes where that version says",
          `put the newest ring of this installation in the place of ${paths.ringFile(name)}; what is meant to take back a change needs a higher version too: ring rebalance`,
        ),
      ];
    },
  );

/** A node that was given rings and not what the installation began with. */
const otherBases = ({ paths }: Subject): Finding[] =>
  Object.entries(readMoveStatus(`${paths.ringsDir}/moves.json`)?.rings ?? {}).flatMap(([name, { otherBase }]) =>
    otherBase === undefined
      ? []
      : [
          problem(
            `ring ${name}: the installation began with another ring, as ${otherBase} has it, than DIR/rings/${name}.base says here`,
            "this node looks for what was never moved at the wrong devices, which do not answer it",
            `${OTHER_BASE_REMEDY}, then ./scripts/ringstead down and up, or serve again`,
          ),
        ],
  );

const scrubFindings = ({ config, status }: Subject): Finding[] => {
  const remedy = "./scripts/ringstead scrub start; scrub_days in cluster.toml says how often it is done by itself";
  const consequence = "damage of what nobody reads is found late, when another replica may be damaged too";
  const nowMs = systemClock.nowMs();
  const startedMs = Date.parse(status.supervisor?.since ?? "");
  const overdue = ({ figures }: DeviceStatus): boolean => {
    const last = figures["scrub_last_seconds"];
    if (last === undefined) return false;
    const limitMs = 2 * (config.scrubDays === 0 ? 30 : config.scrubDays) * DAY_MS;
    return nowMs - (last === 0 ? startedMs : last * 1000) > limitMs;
  };
  return status.devices.filter(overdue).map(({ device, figures }) => {
    const last = figures["scrub_last_seconds"] ?? 0;
    const when = last === 0 ? "never" : `last at ${new Date(last * 1000).toISOString()}`;
    return warning(`device ${device} was read from end to end ${when}`, consequence, remedy);
  });
};

const spaceFindings = ({ paths }: Subject): Finding[] => {
  const { bavail, bsize } = statfsSync(paths.dataDir);
  if (bavail * bsize >= FREE_BYTES_MIN) return [];
  return [
    warning(
      `the file system of ${paths.dataDir} has only ${Math.round((bavail * bsize) / 1024 ** 2)} MiB free`,
      "the control database and logs are there: without space users, projects and keys cannot be changed",
      "free space",
    ),
  ];
};

const identityFindings = async ({ paths, config }: Subject): Promise<Finding[]> => {
  const findings = await examineIdentity(paths, config);
  return findings.flatMap(({ check, problem: found, remedy, consequence }) =>
    found === undefined ? [] : [problem(`identity: not so: ${check}: ${found}`, consequence, remedy ?? "")],
  );
};

const CHECKS: readonly Check[] = [
  { name: "secrets are private", run: secretFindings },
  { name: "certificates are valid", run: certificateFindings },
  { name: "rings are right", run: ringFindings },
  { name: "rings that were put in place count", run: refusedRings },
  { name: "nodes began with the same rings", run: otherBases },
  { name: "devices are read from end to end in time", run: scrubFindings },
  { name: "there is space for the control plane", run: spaceFindings },
  { name: "identity's rows and keys are right", run: identityFindings },
];

/** One check; what keeps it from being made is a finding too. */
const make = async ({ name, run }: Check, subject: Subject): Promise<readonly Finding[]> => {
  try {
    return await run(subject);
  } catch (thrown) {
    return [
      problem(
        `whether ${name} cannot be told: ${messageOf(thrown)}`,
        "what is wrong there stays unknown",
        "put that right, then ask again",
      ),
    ];
  }
};

const found = async (
  paths: RuntimePaths,
): Promise<{ readonly findings: readonly Finding[]; readonly well: readonly string[] }> => {
  const { status, findings } = await statusOf(paths);
  const all: Finding[] = [...findings];
  const well: string[] = [];
  if (findings.length === 0 && status.state === "ok") well.push("processes, devices and services are up");
  if (status.state === "down")
    all.unshift(
      problem(`nothing runs on ${paths.dataDir}`, "no request is answered", "./scripts/start, or ringstead up"),
    );
  let config: ClusterConfig;
  try {
    config = loadConfig(paths.dataDir, LOCAL_NODE);
  } catch {
    // It is among the findings of status.
    return { findings: all, well };
  }
  for (const check of CHECKS) {
    const more = await make(check, { paths, config, status });
    if (more.length === 0) well.push(check.name);
    all.push(...more);
  }
  return { findings: all, well };
};

const linesOf = ({ severity, what, consequence, remedy }: Finding): string[] => [
  `${severity === "problem" ? "PROBLEM" : "warning"}  ${what}`,
  `         costs: ${consequence}`,
  `         do:    ${remedy}`,
];

/** `ringstead doctor [--json]`: exit 0 without problems, else 1. */
export const doctor = async (argv: readonly string[]): Promise<number> => {
  const { values } = parseOptions(argv, {
    data: { type: "string" },
    json: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  });
  if (values.help === true) {
    process.stdout.write(HELP);
    return 0;
  }
  const paths = runtimePaths(dataDirOf(values.data));
  if (!existsSync(paths.clusterId))
    throw new RingsteadError("no-installation", `there is no installation in ${paths.dataDir}`);
  const { findings, well } = await found(paths);
  const text =
    values.json === true
      ? JSON.stringify({ findings, well }, undefined, 2)
      : [...findings.flatMap(linesOf), ...well.map((name) => `ok       ${name}`)].join("\n");
  process.stdout.write(`${text}\n`);
  return findings.some(({ severity }) => severity === "problem") ? 1 : 0;
};
