import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { answersOf, RECORDED } from "../proxy/scenarios/swift-answers.ts";
import { startSwift } from "./swift-contender.ts";

/** `node bench/record-swift-answers.ts`: asks Debian's Swift what `proxy/scenarios/swift-operations.test.ts` asks us, and keeps its answers. */
const folder = mkdtempSync(join(tmpdir(), "ringstead-record-"));
try {
  await using swift = await startSwift(folder);
  const { host, port, accountPath, token } = await swift.login();
  const url = `http://${host}:${port}${accountPath}`;
  // What was made to see whether it serves.
  await fetch(`${url}/ready`, { method: "DELETE", headers: { "X-Auth-Token": token } });
  writeFileSync(
    RECORDED,
    `[\n${(await answersOf(url, token)).map((answer) => JSON.stringify(answer)).join(",\n")}\n]\n`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
