import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../common/log.ts";
import { NbdServer } from "./filling/nbd-server.ts";
import { NbdConnection } from "./nbd-client.ts";
import { COMMAND_READ } from "./nbd-protocol.ts";

const SIZE = 1024 * 1024;

test("what is not answered in time ends the connection, and one without a limit waits for its answer", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-nbd-"));
  const { promise, resolve } = Promise.withResolvers<void>();
  const read = async (offset: number, length: number) => {
    await promise;
    return [{ offset, zeroBytes: length }];
  };
  const server = new NbdServer({ find: () => ({ sizeBytes: SIZE, read }), log: silentLog });
  onTestFinished(async () => {
    await server[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });
  const path = join(folder, "nbd");
  await server.listen(path);
  using patient = await NbdConnection.opened(path, "disk", [], { answerLimitMs: Number.POSITIVE_INFINITY });
  const answer = patient.ask(COMMAND_READ, 0, 4096);
  using hasty = await NbdConnection.opened(path, "disk", [], { answerLimitMs: 50 });
  const others = [hasty.ask(COMMAND_READ, 0, 4096), hasty.ask(COMMAND_READ, 4096, 4096)];
  for (const other of others) await expect(other).rejects.toMatchObject({ code: "daemon-lost" });
  expect([patient.isOpen, hasty.isOpen]).toEqual([true, false]);
  resolve();
  expect(await answer).toEqual([{ kind: "hole", offset: 0, length: 4096 }]);
  expect([patient.sizeBytes, patient.description]).toEqual([SIZE, undefined]);
});
