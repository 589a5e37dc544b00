import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { NO_INCARNATION } from "../common/ballot.ts";
import { RingsteadError } from "../common/errors.ts";
import { TIMESTAMP_ZERO } from "../common/hybrid-clock.ts";
import { silentLog } from "../common/log.ts";
import { RpcClient } from "../common/rpc/client.ts";
import { RpcServer } from "../common/rpc/server.ts";
import { DeviceClient, DevicesClient } from "./client.ts";
import type { Name } from "./wire.ts";

const KEY = Buffer.alloc(32, 5);
const NAME: Name = { space: "object", hash32: 1, path: "/a/c/o" };
const PLACE = { space: "object", partition: 3, partitionPower: 4 } as const;
const CONFIGURATION = { epoch: 2, old: [{ id: "n/d1", since: 0 }], next: undefined, floor: TIMESTAMP_ZERO };
const BALLOT = "0".repeat(48) as never;
const TIMEOUT_MS = 10_000;
const QUERY = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 1, withDeleted: false };

test("whatever a storage node answers, who asked is told a value or a typed error, and the connection serves the next", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-client-"));
  let answer: { readonly header: readonly unknown[]; readonly body: Uint8Array } = {
    header: [],
    body: new Uint8Array(),
  };
  const server = new RpcServer(KEY, (_header, _body, reply) => reply.ok(answer.header, answer.body), silentLog);
  await server.listen(join(folder, "socket"));
  const rpc = new RpcClient(join(folder, "socket"), KEY);
  const devices = new DevicesClient(rpc, ["d1"]);
  const device = new DeviceClient(rpc, "d1");
  const told = <T>(send: (answered: (error: RingsteadError | undefined, value: T | undefined) => void) => void) =>
    new Promise<string>((resolve) => {
      send((error) => resolve(error?.code ?? "value"));
    });
  const caught = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => "value",
      (error: unknown) => (error instanceof RingsteadError ? error.code : "another error"),
    );
  const field = fc.oneof(
    fc.nat({ max: 5 }),
    fc.constantFrom(null, "rows", "moved", "stored", "0".repeat(48)),
    fc.string(),
    fc.array(fc.oneof(fc.nat({ max: 5 }), fc.constant("0".repeat(48)), fc.string()), { maxLength: 8 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(field, { maxLength: 7 }), fc.uint8Array({ maxLength: 60 }), async (header, body) => {
      answer = { header, body };
      const results = await Promise.all([
        told((answered) => devices.prepare(NAME, BALLOT, [], 0, TIMEOUT_MS, answered)),
        told((answered) => devices.read(NAME, 0, TIMEOUT_MS, answered)),
        told((answered) => devices.stageOpen(TIMEOUT_MS, answered)),
        told((answered) => device.list(NAME, NO_INCARNATION, QUERY, TIMEOUT_MS, answered)),
        caught(device.unsettled(0, undefined, TIMEOUT_MS)),
        caught(device.configure(PLACE, CONFIGURATION, TIMEOUT_MS)),
        caught(device.epoch(PLACE, TIMEOUT_MS)),
        caught(device.epochs("object", 4, 0, "", TIMEOUT_MS)),
        caught(device.seal(PLACE, 1, TIMEOUT_MS)),
        caught(device.release(PLACE, 2, TIMEOUT_MS)),
      ]);
      for (const result of results) expect(["value", "bad-message"]).toContain(result);
    }),
    { seed: 20_269, numRuns: 300 },
  );
  rpc[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});
