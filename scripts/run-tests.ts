import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { exitCodeOf } from "./exit-code.ts";
import { runTempest } from "./tempest/tempest-run.ts";
import { CHECKOUT, parseOptions } from "./up-options.ts";

const HELP = `./scripts/test [KIND]
  quick                      checks, unit tests, simulations with fixed seeds, scenarios (the default)
  unit                       unit and contract tests; those of an API on SQLite and on PostgreSQL
  simulation [--seeds N]     simulations, with N further seeds; SEED=… repeats one
  scenario                   real processes and real clients
  guest                      what takes kernel modules that a machine may lack (device-mapper, NBD and iSCSI disks), in a QEMU guest: ten minutes
  tempest SERVICE            OpenStack's own tests against a service
  all                        everything that exists: quick, with the power cut at 200 points of a real file system instead of 20,
                             64 uploads and downloads of 128 MiB at once, one of 5 GiB, more ways in which disks fill up and fail and in which
                             networks are cut, thousands of files by each client instead of hundreds; and guest
`;

/**
 * Unit tests start daemons of others (LVM, QEMU, PostgreSQL, slapd) on a machine that may do other things: what fails in few files is run once more, and told
 * as unsteady where it passes then. Simulations and scenarios look for what must never happen, and are never run again.
 */
const RUN_AGAIN: ReadonlySet<string> = new Set(["unit"]);
const RUN_AGAIN_FILES_MAX = 2;
/** Of what a failed test says, in the list at a run's end. */
const FAILURE_CHARACTERS = 2000;

/** Points at which `storage-node/scenarios/power-loss.test.ts` cuts the power in `all`: some six minutes. */
const ALL_POWER_LOSS_MARKS = "200";

type Tally = {
  readonly passed: number;
  readonly failed: number;
  /** What failed, and how. */
  readonly failures?: readonly string[];
  /** What failed at first, and passed when it was run again. */
  readonly unsteady?: readonly string[];
};
type Step = { readonly name: string; run(): Tally | Promise<Tally> };

const CHECKS: readonly (readonly [name: string, command: string, ...args: string[]])[] = [
  ["format", "biome", "format", "."],
  ["types", "tsc", "--noEmit"],
  ["lint", "oxlint", "--type-aware", "--deny-warnings"],
  ["tidy", "node", "scripts/tidy.ts"],
  ["unused", "knip"],
];

const run = (command: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}): boolean => {
  const result = spawnSync(command, args, { cwd: CHECKOUT, stdio: "inherit", env: { ...process.env, ...environment } });
  if (result.error !== undefined) process.stdout.write(`${command}: ${result.error.message}\n`);
  return result.status === 0;
};

const check = ([name, command, ...args]: (typeof CHECKS)[number]): Step => ({
  name,
  run: () => (run(command, args) ? { passed: 1, failed: 0 } : { passed: 0, failed: 1, failures: [name] }),
});

const fieldOf = (of: unknown, name: string): unknown =>
  typeof of === "object" && of !== null ? (of as Record<string, unknown>)[name] : undefined;

const listOf = (of: unknown, name: string): readonly unknown[] => {
  const list = fieldOf(of, name);
  return Array.isArray(list) ? list : [];
};

/** Counts of vitest's JSON report. A file that could not be loaded has no tests, but a failed suite. */
export const tallyOf = (report: unknown): Tally => {
  const count = (name: string): number => Number(fieldOf(report, name) ?? 0);
  const failed = count("numFailedTests");
  const failures = listOf(report, "testResults").flatMap((file) => {
    if (fieldOf(file, "status") !== "failed") return [];
    const tests = listOf(file, "assertionResults").filter((test) => fieldOf(test, "status") === "failed");
    const told = tests.map((test) => [fieldOf(test, "fullName"), ...listOf(test, "failureMessages")]);
    return (told.length > 0 ? told : [[fieldOf(file, "message")]]).map((words) =>
      `${String(fieldOf(file, "name"))}: ${words.join("\n")}`.slice(0, FAILURE_CHARACTERS),
    );
  });
  return { passed: count("numPassedTests"), failed: failed > 0 ? failed : count("numFailedTestSuites"), failures };
};

/** The files of a report with a test that failed. */
export const failedFiles = (report: unknown): readonly string[] =>
  listOf(report, "testResults").flatMap((file) =>
    fieldOf(file, "status") === "failed" ? [String(fieldOf(file, "name"))] : [],
  );

/** Projects of vitest.config.ts beside the one that a kind is called after. */
const FURTHER_PROJECTS: Readonly<Record<string, readonly string[]>> = { unit: ["postgres"] };

const counted = (reportFile: string, isGood: boolean): Tally => {
  const tally = tallyOf(JSON.parse(readFileSync(reportFile, "utf8")));
  // A run that failed without a failed test (an unhandled rejection), or that found no test, is a failure all the same.
  if (tally.failed === 0 && (!isGood || tally.passed === 0)) {
    const failures = ["a test file failed outside its tests, or none was found"];
    return { passed: tally.passed, failed: 1, failures };
  }
  return tally;
};

const vitest = (project: string, environment: Readonly<Record<string, string>> = {}): Step => ({
  name: project,
  run: () => {
    const folder = mkdtempSync(join(tmpdir(), "ringstead-test-"));
    try {
      const reportFile = join(folder, "report.json");
      const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
      const projects = [project, ...(FURTHER_PROJECTS[project] ?? [])].flatMap((name) => ["--project", name]);
      const runFiles = (files: readonly string[]): Tally =>
        counted(reportFile, run("vitest", ["run", ...projects, ...reporters, ...files], environment));
      const tally = runFiles([]);
      const files = RUN_AGAIN.has(project) ? failedFiles(JSON.parse(readFileSync(reportFile, "utf8"))) : [];
      if (files.length === 0 || files.length > RUN_AGAIN_FILES_MAX) return tally;
      process.stdout.write(`\n== ${project}: what failed is run again, alone\n`);
      const again = runFiles(files);
      if (again.failed > 0) return tally;
      return { passed: tally.passed + tally.failed, failed: 0, unsteady: tally.failures ?? [] };
    } catch (thrown) {
      process.stdout.write(`vitest left no report: ${messageOf(thrown)}\n`);
      return { passed: 0, failed: 1 };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
});

/** Runs the project `guest` in a guest, in a process of its own, which a time-out or Ctrl-C ends in good order. */
const guest: Step = {
  name: "guest",
  run: () => {
    const folder = mkdtempSync(join(tmpdir(), "ringstead-test-"));
    try {
      const reportFile = join(folder, "report.json");
      const isGood = run("node", ["scripts/test-in-guest.ts", reportFile]);
      return isGood || existsSync(reportFile) ? counted(reportFile, isGood) : { passed: 0, failed: 1 };
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

const stepsOf = (kind: string, service: string | undefined, seeds: string | undefined): readonly Step[] => {
  const simulation = vitest("simulation", seeds === undefined ? {} : { SEEDS: seeds });
  const everything = (scenario: Step): Step[] => [...CHECKS.map(check), vitest("unit"), simulation, scenario];
  switch (kind) {
    case "quick":
      return everything(vitest("scenario"));
    case "all":
      return [
        ...everything(vitest("scenario", { POWER_LOSS_MARKS: ALL_POWER_LOSS_MARKS, LARGE_TRANSFERS: "1" })),
        ...(process.getuid?.() === 0 ? [guest] : []),
      ];
    case "guest":
      return [guest];
    case "unit":
    case "scenario":
      return [vitest(kind)];
    case "simulation":
      return [simulation];
    case "tempest":
      return [{ name: `tempest ${service ?? ""}`.trim(), run: () => runTempest(service ?? "SERVICE") }];
    default:
      throw new RingsteadError("usage", `there is no kind of test "${kind}"\n${HELP}`);
  }
};

const main = async (argv: readonly string[]): Promise<number> => {
  const { values, positionals } = parseOptions(argv, { seeds: { type: "string" }, help: { type: "boolean" } }, true);
  const [kind = "quick", service] = positionals;
  if (values.help === true || kind === "help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (values.seeds !== undefined && !/^[1-9]\d{0,8}$/.test(values.seeds)) {
    throw new RingsteadError("usage", `--seeds takes a whole number, not "${values.seeds}"`);
  }
  let passed = 0;
  let failed = 0;
  const failures: string[] = [];
  for (const step of stepsOf(kind, service, values.seeds)) {
    process.stdout.write(`\n== ${step.name}\n`);
    const tally = await step.run();
    passed += tally.passed;
    failed += tally.failed;
    failures.push(...(tally.unsteady ?? []).map((failure) => `UNSTEADY in ${step.name}: ${failure}\n`));
    failures.push(...(tally.failures ?? []).map((failure) => `FAILED in ${step.name}: ${failure}\n`));
    process.stdout.write(`== ${step.name}: ${tally.passed} passed, ${tally.failed} failed\n`);
  }
  // At the end too: who reads a long run reads its last lines.
  for (const failure of failures) process.stdout.write(`\n${failure}`);
  process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
  return failed === 0 ? 0 : 1;
};

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (thrown) {
    process.stderr.write(`${messageOf(thrown)}\n`);
    process.stdout.write("0 passed, 1 failed\n");
    process.exitCode = exitCodeOf(thrown);
  }
}
