import { spawn } from "node:child_process";
import { join } from "node:path";
import { expect } from "vitest";
import { cleanEnvironment } from "../../scripts/scenarios/installation.ts";

export type Said = { readonly output: string; readonly errors: string };

/** A command of a shell that has read the openrc of the installation in `folder`. */
export const inShell = (folder: string, command: string): readonly [string, readonly string[]] => [
  "bash",
  ["-c", `. "$0" && exec ${command} "$@"`, join(folder, "openrc")],
];

/** The JSON values that commands with `-f json` printed, in order. */
const valuesOf = (output: string): unknown[] =>
  [...output.matchAll(/^(?:\[\]|\{\}|\{[\s\S]*?^\}|\[[\s\S]*?^\])$/gm)].map(([text]) => JSON.parse(text) as unknown);

/** The `openstack` command as it is: one process that is given commands line by line. */
export const createOpenstackShell = (folder: string) => {
  const run = (commands: readonly string[], version = "3"): Promise<Said> =>
    new Promise((resolve, reject) => {
      const [shell, words] = inShell(
        folder,
        `env OS_VOLUME_API_VERSION=${version} /usr/bin/python3 /usr/bin/openstack`,
      );
      const child = spawn(shell, words, { env: cleanEnvironment() });
      let output = "";
      let errors = "";
      child.stdout.on("data", (chunk: Buffer) => void (output += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => void (errors += chunk.toString()));
      child.once("error", reject);
      child.once("close", () => resolve({ output: output.replaceAll("(openstack) ", ""), errors }));
      child.stdin.end(`${commands.join("\n")}\n`);
    });
  return {
    run,
    /** The values that they printed; none may fail. */
    valuesIn: async (version: string, ...commands: string[]): Promise<readonly unknown[]> => {
      const { output, errors } = await run(commands, version);
      expect(errors).toBe("");
      return valuesOf(output);
    },
  };
};
