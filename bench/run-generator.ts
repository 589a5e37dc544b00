import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { LoadResult, LoadSpec } from "./load.ts";

const GENERATORS = {
  raw: join(import.meta.dirname, "load-generator.ts"),
  autocannon: join(import.meta.dirname, "autocannon-generator.ts"),
};

/** Runs a load in a generator's process. Throws where that ends without a result. */
export const runGenerator = async (generator: keyof typeof GENERATORS, spec: LoadSpec): Promise<LoadResult> => {
  const child = spawn(process.execPath, [GENERATORS[generator]], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(spec));
  const output = await text(child.stdout);
  if (output === "") throw new Error("the load generator ended without a result; see above");
  return JSON.parse(output);
};
