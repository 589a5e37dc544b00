import { execFile } from "node:child_process";
import { RingsteadError } from "../../common/errors.ts";

/** No command that the host runs may take longer; those that erase say so themselves. */
const COMMAND_TIMEOUT_MS = 30_000;
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024;
/** Messages are compared and parsed: in the language in which they were written. */
const ENVIRONMENT = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

/**
 * Runs a program without a shell and resolves with what it printed. Errors: "command-failed" with `exitCode` and `stderr`, "command-missing",
 * "command-timeout".
 */
export const runCommand = (
  program: string,
  parameters: readonly string[],
  timeoutMs = COMMAND_TIMEOUT_MS,
): Promise<string> =>
  new Promise((resolve, reject) => {
    const options = {
      timeout: timeoutMs,
      killSignal: "SIGKILL",
      maxBuffer: OUTPUT_LIMIT_BYTES,
      env: ENVIRONMENT,
    } as const;
    execFile(program, parameters, options, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      const said = stderr
        .trim()
        .split("\n")
        .filter((line) => !line.includes("WARNING:"))
        .join("; ");
      if (error.code === "ENOENT") return reject(new RingsteadError("command-missing", `${program} is not installed`));
      if (error.killed === true)
        return reject(
          new RingsteadError("command-timeout", `${program} took longer than ${timeoutMs} ms`, { parameters }),
        );
      const exitCode = typeof error.code === "number" ? error.code : undefined;
      reject(
        new RingsteadError("command-failed", `${program} ${parameters[0] ?? ""}: ${said || error.message}`, {
          parameters,
          exitCode,
          stderr: said,
        }),
      );
    });
  });
