import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";

/** GETs over `count` objects and PUTs over as many others at fixed rates, however long answers take. */
export type OpenLoopSpec = {
  readonly host: string;
  readonly port: number;
  readonly token: string;
  readonly accountPath: string;
  readonly container: string;
  readonly prefix: string;
  readonly putPrefix: string;
  readonly count: number;
  readonly sizeBytes: number;
  readonly getsPerSecond: number;
  readonly putsPerSecond: number;
};

export type OpenLoopResult = {
  /** From when a request was due until its answer had come. */
  readonly latenciesUs: readonly number[];
  readonly failed: number;
  readonly firstFailure: string | undefined;
  readonly elapsedMs: number;
};

const GENERATOR = join(import.meta.dirname, "open-loop-generator.ts");

/** Runs the load in a process of its own as long as `during` takes. Throws where the generator ends without a result. */
export const openLoop = async (spec: OpenLoopSpec, during: () => Promise<unknown>): Promise<OpenLoopResult> => {
  const child = spawn(process.execPath, [GENERATOR], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(spec));
  const output = text(child.stdout);
  try {
    await during();
  } finally {
    child.kill("SIGTERM");
  }
  const result = await output;
  if (result === "") throw new Error("the load generator ended without a result; see above");
  return JSON.parse(result);
};
