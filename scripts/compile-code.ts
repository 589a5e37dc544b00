import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROCESS_KINDS } from "./installation.ts";
import { CHECKOUT } from "./up-options.ts";

/**
 * Runs every process for a moment on a folder where nothing is, so that Node's compile cache (NODE_COMPILE_CACHE) has its code before the
 * first start: one file that is missing there makes a process load the whole TypeScript compiler.
 */
const folder = mkdtempSync(join(tmpdir(), "ringstead-compile-"));
try {
  const ringstead = join(CHECKOUT, "scripts/ringstead.ts");
  const runs = [
    // Refused as wrong usage, once all of it is loaded.
    [ringstead, "up", "--nothing"],
    [ringstead, "status", "--data", folder],
    [ringstead, "down", "--data", folder],
    // Refused for want of a socket.
    [join(CHECKOUT, "block/host/disk-front/main.ts")],
    ...[...new Set(PROCESS_KINDS.map(({ entry }) => entry))].map((entry) => [join(CHECKOUT, entry), "--data", folder]),
  ];
  for (const words of runs)
    spawnSync(process.execPath, ["--disable-warning=ExperimentalWarning", ...words], { stdio: "ignore" });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
