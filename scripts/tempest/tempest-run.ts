import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RingsteadError } from "../../common/errors.ts";
import { freePortOffset } from "../../common/free-ports.ts";
import { CHECKOUT } from "../up-options.ts";
import {
  TEMPEST_INSTALLATIONS,
  TEMPEST_SERVICES,
  type TempestService,
  type TempestTarget,
  tempestConfigurationText,
} from "./tempest-configuration.ts";

const TEMPEST = "/usr/bin/tempest";
/** Test programs at once: each spends most of its time in Python. */
const CONCURRENCY = 2;
const OUTPUT_LIMIT_BYTES = 256 * 1024 * 1024;

const SMOKE = String.raw`[\[,]smoke[\],]`;

export type TempestTally = { readonly passed: number; readonly failed: number; readonly skipped: number };

type Ready = Pick<TempestTarget, "region" | "admin"> & { readonly endpoints: Readonly<Record<string, string>> };

/** The counts at the end of what tempest prints. A run that found nothing to run, or broke off, has failed once. */
export const tempestTally = (output: string, exitCode: number | null): TempestTally => {
  const count = (name: string): number => {
    const all = [...output.matchAll(new RegExp(`^ - ${name}: (\\d+)$`, "gm"))];
    return Number(all.at(-1)?.[1] ?? 0);
  };
  const passed = count("Passed");
  const failed = count("Failed") + count("Unexpected Success");
  const isBroken = failed === 0 && (passed === 0 || exitCode !== 0);
  return { passed, failed: isBroken ? 1 : failed, skipped: count("Skipped") };
};

const ringstead = (
  command: string,
  words: readonly string[],
): { readonly code: number | null; readonly output: string } => {
  const { status, stdout, stderr } = spawnSync(join(CHECKOUT, "scripts", command), [...words], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
  return { code: status, output: `${stdout}${stderr}` };
};

/** Starts an installation with its data in `dataDir` at ports of its own. Throws RingsteadError `not-started`. */
const start = async (dataDir: string, service: TempestService): Promise<void> => {
  const { only, clusterFileText } = TEMPEST_INSTALLATIONS[service];
  mkdirSync(dataDir);
  writeFileSync(join(dataDir, "cluster.toml"), clusterFileText);
  const offset = await freePortOffset();
  const words = ["--data", dataDir, "--detach", "--only", only, "--port-offset", String(offset)];
  const { code, output } = ringstead("start", words);
  if (code === 0) return;
  throw new RingsteadError("not-started", `no installation for tempest could be started: ${output.trim()}`);
};

/** The environment without what points clients and Python elsewhere. */
const cleanEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(OS|TEMPEST|PYTHON|STESTR)|_CA_BUNDLE$|^SSL_CERT_|_proxy$/i.test(name),
    ),
  );

const runTests = (folder: string, service: TempestService, ...selection: readonly string[]): TempestTally => {
  const words = [
    ["run", "--config-file", join(folder, "tempest.conf"), "--concurrency", String(CONCURRENCY)],
    ["--exclude-list", join(import.meta.dirname, `${service}-absent.txt`), ...selection],
  ].flat();
  const options = { cwd: folder, env: cleanEnvironment(), encoding: "utf8", maxBuffer: OUTPUT_LIMIT_BYTES } as const;
  const { status, stdout, stderr } = spawnSync(TEMPEST, words, { ...options, stdio: ["ignore", "pipe", "pipe"] });
  process.stdout.write(`${stdout}${stderr}`);
  const tally = tempestTally(stdout, status);
  process.stdout.write(`\n${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped\n`);
  return tally;
};

/**
 * Runs Debian's tempest for `service` against an installation of this checkout that is started for it and removed afterwards: the smoke
 * tests, then all others. Throws RingsteadError `usage` for a service that tempest is not set up for, `not-installed`, `not-started`.
 */
export const runTempest = async (service: string): Promise<Pick<TempestTally, "passed" | "failed">> => {
  const known = TEMPEST_SERVICES.find((one) => one === service);
  if (known === undefined) {
    throw new RingsteadError("usage", `tempest runs against ${TEMPEST_SERVICES.join(", ")}, not "${service}"`);
  }
  if (!existsSync(TEMPEST)) {
    const remedy = "sudo apt-get install --no-install-recommends tempest";
    throw new RingsteadError("not-installed", `Debian's tempest is not installed: ${remedy}`);
  }
  const folder = mkdtempSync(join(tmpdir(), "ringstead-tempest-"));
  const dataDir = join(folder, "data");
  // The terminal's Ctrl-C ends tempest, and then what was started has to be stopped.
  const goOn = (): void => undefined;
  process.on("SIGINT", goOn);
  try {
    await start(dataDir, known);
    const ready: Ready = JSON.parse(readFileSync(join(dataDir, "ready.json"), "utf8"));
    const identityUrl = ready.endpoints["identity"] ?? "";
    const text = tempestConfigurationText({
      service: known,
      region: ready.region,
      identityUrl,
      admin: ready.admin,
      folder,
    });
    writeFileSync(join(folder, "tempest.conf"), text, { mode: 0o600 });
    const tests = String.raw`^tempest\.api\.${known}\.`;
    const smoke = runTests(folder, known, "--regex", `${tests}.*${SMOKE}`);
    const rest = runTests(folder, known, "--regex", tests, "--exclude-regex", SMOKE);
    return { passed: smoke.passed + rest.passed, failed: smoke.failed + rest.failed };
  } finally {
    ringstead("ringstead", ["down", "--data", dataDir]);
    rmSync(folder, { recursive: true, force: true });
    process.off("SIGINT", goOn);
  }
};
