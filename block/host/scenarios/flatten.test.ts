import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { hostPaths } from "../paths.ts";
import { uriOf } from "../test-host.ts";
import { HostProcess } from "./host-process.ts";

const MIB = 1024 * 1024;
const SIZE_BYTES = 256 * MIB;
const RINGSTEAD = join(import.meta.dirname, "..", "..", "..", "scripts", "ringstead");
const run = promisify(execFile);

/** Writes as fast as it may, and compares what it reads with what it wrote; rejects with what fio says where one differs. */
const fioVerify = (uri: string): Promise<unknown> =>
  run(
    "fio",
    ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--bs=4k", "--iodepth=16"].concat([
      `--size=${64 * MIB}`,
      "--verify=crc32c",
      "--do_verify=1",
      "--verify_fatal=1",
      "--end_fsync=1",
    ]),
    { cwd: "/tmp" },
  );

test("the command makes a copy independent under fio, also where the host is killed in the middle of it", async () => {
  const processOfHost = new HostProcess();
  onTestFinished(() => processOfHost[Symbol.asyncDispose]());
  await processOfHost.start();
  const { host, folder, runtime } = processOfHost;
  const volumeId = await processOfHost.newVolume(SIZE_BYTES);
  const served = { attachmentId: randomUUID(), transport: "unix", isReadOnly: false } as const;
  const own = uriOf(await host.exportVolume({ ...served, volumeId }));
  await run("qemu-io", ["-f", "raw", "-c", `write -P 5 0 ${SIZE_BYTES}`, "-c", "flush", own]);
  const copyId = randomUUID();
  const [pool] = await host.pools();
  const source = { kind: "volume", volumeId } as const;
  await host.createVolume({ volumeId: copyId, pool: pool?.pool ?? "", sizeBytes: SIZE_BYTES, source });
  const uri = uriOf(await host.exportVolume({ ...served, volumeId: copyId, attachmentId: randomUUID() }));
  const verified = fioVerify(uri);
  await host.flattenVolume(copyId);
  await sleep(100);
  await processOfHost.kill();
  await processOfHost.start();
  const { stdout } = await run(RINGSTEAD, ["volume", "flatten", copyId, "--data", folder]);
  expect(stdout).toBe("");
  await verified;
  await run("qemu-io", ["-r", "-f", "raw", "-c", `read -P 5 ${64 * MIB} ${SIZE_BYTES - 64 * MIB}`, uri]);
  await run("qemu-io", ["-r", "-f", "raw", "-c", `read -P 5 0 ${SIZE_BYTES}`, own]);
  const { layers } = JSON.parse(readFileSync(hostPaths(runtime).records, "utf8")) as {
    readonly layers: readonly { readonly base?: string }[];
  };
  expect(layers.filter(({ base }) => base === undefined).length).toBe(2);
  await expect(run(RINGSTEAD, ["volume", "flatten", randomUUID(), "--data", folder])).rejects.toThrow(
    "there is no volume",
  );
});
