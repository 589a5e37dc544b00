import { rmSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { messageOf } from "../../../common/errors.ts";
import { DiskFrontProcess } from "./front-process.ts";

/*
 * `node main.ts --disk FILE --nbd SOCKET --control SOCKET --mark FILE --pid-file FILE`: one volume as a file. It outlives whoever started it, and ends with
 * SIGTERM, everything flushed where the volume's daemon is there.
 */
const { values } = parseArgs({
  options: {
    disk: { type: "string", default: "" },
    nbd: { type: "string", default: "" },
    control: { type: "string", default: "" },
    mark: { type: "string", default: "" },
    "pid-file": { type: "string", default: "" },
  },
});
const say = (message: string): void => void process.stdout.write(`${new Date().toISOString()} ${message}\n`);
let ended: Promise<void> | undefined;
const end = (): void => {
  // Threads that wait for the kernel's next request would keep an orderly exit waiting.
  process.kill(process.pid, "SIGKILL");
};

process.umask(0o077);
try {
  const front = await DiskFrontProcess.started({
    disk: values.disk,
    nbdSocket: values.nbd,
    control: values.control,
    mark: values.mark,
    say,
  });
  writeFileSync(values["pid-file"], `${process.pid}\n`);
  // It may come twice, also from the front itself once its file is unmounted: what the first one began, a flush too, goes on.
  process.on("SIGTERM", () => {
    ended ??= front[Symbol.asyncDispose]().finally(end);
  });
} catch (error) {
  say(messageOf(error));
  rmSync(values.control, { force: true });
  process.exitCode = 1;
}
