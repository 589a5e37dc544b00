import { spawn } from "node:child_process";

/** A command that ended: standard output and error joined, as a person sees them. */
export type CommandRun = { readonly code: number | null; readonly output: string; readonly lastLine: string };

/** Runs a command without blocking the test's own timers; resolves when it has ended, whatever its exit code. */
export const runCommand = (
  command: string,
  words: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<CommandRun> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, words, { stdio: ["ignore", "pipe", "pipe"], ...options });
    let output = "";
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output, lastLine: output.trimEnd().split("\n").at(-1) ?? "" }));
  });
