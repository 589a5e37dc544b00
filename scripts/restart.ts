import { request } from "node:http";
import { createInterface } from "node:readline";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import type { RestartLine } from "./rolling-restart.ts";
import { lockHolder } from "./supervisor-lock.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const notRunning = (dataDir: string): RingsteadError =>
  new RingsteadError("not-running", `nothing runs on ${dataDir}: start it with ./scripts/start --data ${dataDir}`);

const readLine = (text: string): RestartLine => JSON.parse(text) as RestartLine;

/** Asks the supervisor, prints what it says line by line, and gives whether all went well. */
const ask = (socketPath: string, roles: readonly string[], dataDir: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const query = roles.map((role) => `role=${encodeURIComponent(role)}`).join("&");
    const asked = request({ socketPath, method: "POST", path: `/restart?${query}` }, (response) => {
      let isGood = false;
      let isDone = false;
      const lines = createInterface({ input: response });
      lines.on("line", (text) => {
        const line = readLine(text);
        isDone ||= line.isDone === true;
        isGood ||= line.isGood === true;
        const stream = line.isDone === true && line.isGood !== true ? process.stderr : process.stdout;
        stream.write(`${line.text}\n`);
      });
      lines.on("close", () => {
        if (isDone) resolve(isGood);
        else reject(new RingsteadError("not-running", "the supervisor ended in the middle of the restart"));
      });
      response.on("error", () => lines.close());
    });
    asked.on("error", (error) =>
      reject(["ENOENT", "ECONNREFUSED"].includes(codeOf(error) ?? "") ? notRunning(dataDir) : error),
    );
    asked.end();
  });

/**
 * `ringstead restart [--role ROLE[,ROLE…]]`: new processes in the place of those that run, also from a checkout that is newer than they are, without a
 * request that fails. The supervisor itself stays as it is until `down` and `up`. Exit code 1 where it did not come to its end.
 */
export const restart = async (argv: readonly string[]): Promise<number> => {
  const { values } = parseOptions(argv, { data: { type: "string" }, role: { type: "string", multiple: true } });
  const paths = runtimePaths(dataDirOf(values.data));
  if (lockHolder(paths.supervisorLock) === undefined) throw notRunning(paths.dataDir);
  const roles = (values.role ?? []).flatMap((text) => text.split(",").map((role) => role.trim()));
  return (await ask(paths.socket("supervisor"), roles, paths.dataDir)) ? 0 : 1;
};
