import { writeFileSync } from "node:fs";
import { messageOf } from "../common/errors.ts";
import { runInGuest } from "./guest/guest.ts";

/** Several times what it takes on two busy cores. */
const LIMIT_MS = 2_400_000;

const COMMAND = `
export CI=1 NO_COLOR=1 NODE_COMPILE_CACHE=/tmp/compiled
unset NODE_EXTRA_CA_CERTS
PATH=$PWD/node_modules/node/bin:$PATH
node node_modules/vitest/vitest.mjs run --project guest --reporter=verbose --reporter=json --outputFile.json=/tmp/report.json
`;

/** `node scripts/test-in-guest.ts FILE`: runs the tests of the project `guest` in a guest, and writes vitest's report to the file. */
const main = async ([reportFile]: readonly string[]): Promise<number> => {
  if (reportFile === undefined) throw new Error("the report's file is not named");
  // The terminal's Ctrl-C ends the emulator, and then what it left is removed.
  process.on("SIGINT", () => undefined);
  const { exitCode, report } = await runInGuest(COMMAND, LIMIT_MS);
  if (report !== "") writeFileSync(reportFile, report);
  return exitCode ?? 1;
};

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (thrown) {
  process.stderr.write(`${messageOf(thrown)}\n`);
  process.exitCode = 1;
}
