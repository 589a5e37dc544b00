import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, rmSync, writeFileSync } from "node:fs";

/** Debian's maintainer scripts ask this program before they start anything; 101 means "do not". */
const POLICY_FILE = "/usr/sbin/policy-rc.d";
const POLICY_TEXT = "#!/bin/sh\nexit 101\n";

const isInstalled = (name: string): boolean => {
  try {
    const status = execFileSync("dpkg-query", ["-W", "-f", "${Status}", name], { encoding: "utf8", stdio: "pipe" });
    return status === "install ok installed";
  } catch {
    return false;
  }
};

/** The installed version of Debian's package `name`. */
export const versionOf = (name: string): string =>
  execFileSync("dpkg-query", ["-W", "-f", "${Version}", name], { encoding: "utf8" });

/** Output is shown only when the command fails. */
const run = (command: string, words: readonly string[]): void => {
  execFileSync(command, words, { stdio: ["ignore", "pipe", "pipe"], env: aptEnvironment(), maxBuffer: 64 << 20 });
};

const aptEnvironment = (): NodeJS.ProcessEnv => ({ ...process.env, DEBIAN_FRONTEND: "noninteractive" });

const enabledUnits = (): string[] => {
  try {
    const words = ["list-unit-files", "--state=enabled", "--no-legend", "--plain"];
    const lines = execFileSync("systemctl", words, { encoding: "utf8", stdio: "pipe" }).split("\n");
    return lines.map((line) => line.split(" ")[0] ?? "").filter((unit) => unit !== "");
  } catch {
    return [];
  }
};

/**
 * Installs Debian packages so that nothing of theirs starts or stays enabled; does nothing when all are there.
 * A policy-rc.d that was there before stays as it was. Throws when apt-get fails. Requires: root, where anything is missing.
 */
export const installPackages = (names: readonly string[]): void => {
  const missing = names.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  console.log(`installing Debian packages: ${missing.join(" ")}`);
  const unitsBefore = new Set(enabledUnits());
  const ownPolicy = !existsSync(POLICY_FILE);
  const removePolicy = (): void => rmSync(POLICY_FILE, { force: true });
  if (ownPolicy) {
    // Also where the process ends before `finally` is reached.
    process.once("exit", removePolicy);
    writeFileSync(POLICY_FILE, POLICY_TEXT);
    chmodSync(POLICY_FILE, 0o755);
  }
  const install = ["install", "-y", "--no-install-recommends", ...missing];
  try {
    try {
      run("apt-get", install);
    } catch {
      // Package lists may be absent or old.
      run("apt-get", ["update"]);
      run("apt-get", install);
    }
    for (const unit of enabledUnits()) if (!unitsBefore.has(unit)) run("systemctl", ["disable", unit]);
  } finally {
    if (ownPolicy) {
      removePolicy();
      process.off("exit", removePolicy);
    }
  }
};
