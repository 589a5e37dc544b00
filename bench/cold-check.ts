import { spawn } from "node:child_process";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { Measurement } from "./contest.ts";
import type { LoadResult } from "./load.ts";

/** What cold-token-check.ts is asked for, as JSON on its standard input. */
export type ColdCheckSpec = {
  /** The folder of jwks.json. */
  readonly keysDir: string;
  /** Where identity tells of revocations. */
  readonly socketPath: string;
  /** `AUTH_PROJECT`, whose owner each token is. */
  readonly account: string;
  readonly live: readonly string[];
  /** These have to be refused. */
  readonly revoked: readonly string[];
  readonly limitMs: number;
};

/** Checks tokens in a process of its own, whose CPU time counts as the server's. Throws where it ends without a result. */
export const measureColdChecks = async (spec: ColdCheckSpec): Promise<Measurement> => {
  const program = join(import.meta.dirname, "cold-token-check.ts");
  const child = spawn(process.execPath, [program], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(JSON.stringify(spec));
  const output = await text(child.stdout);
  if (output === "") throw new Error("the check of tokens ended without a result; see above");
  const { rssBytes, ...result }: LoadResult & { readonly rssBytes: number } = JSON.parse(output);
  const memory = { rssBytes, pssBytes: rssBytes };
  const cost = { serverCpuMs: result.clientCpuMs, clientCpuMs: 0, memory };
  return { ...result, ...cost, names: undefined, deletedNames: undefined };
};
