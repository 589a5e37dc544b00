import { expect, test } from "vitest";
import { silentLog } from "../common/log.ts";
import { PeerRefusals, tellRefused, tellTrusted } from "../common/rpc/peer-refusals.ts";
import { refusalsOn } from "./refused-peers.ts";

test("what a process writes on its page of refused peers is what status reads, whatever is in the words", () => {
  const nowMs = Date.parse("2026-11-22T10:00:00Z");
  using refusals = new PeerRefusals(silentLog, { nowMs: () => nowMs });
  const remedy = "set the clock";
  tellRefused({
    side: "client",
    peer: "10.0.0.2:6200",
    code: "clock-off",
    reason: 'its "clock"\nis 40 s\\behind',
    remedy,
  });
  tellRefused({ side: "server", peer: "10.0.0.9", code: "rpc-not-tls", reason: "no TLS", remedy: "keep it away" });
  tellRefused({ side: "server", peer: "10.0.0.3", code: "rpc-versions", reason: "version 1", remedy: "upgrade it" });
  expect(
    refusalsOn(refusals.render("proxy")).map(({ severity, what, remedy: todo }) => [severity, what, todo]),
  ).toEqual([
    [
      "problem",
      'proxy cannot use its peer at 10.0.0.2:6200 (last at 2026-11-22T10:00:00.000Z): its "clock"\nis 40 s\\behind',
      "set the clock",
    ],
    ["warning", "proxy refused a peer from 10.0.0.9 (last at 2026-11-22T10:00:00.000Z): no TLS", "keep it away"],
    ["problem", "proxy refused a peer from 10.0.0.3 (last at 2026-11-22T10:00:00.000Z): version 1", "upgrade it"],
  ]);
});

test("a refusal is shown until the peer is trusted, or for two minutes, and logged once a minute with how often it was", () => {
  let nowMs = 0;
  const logged: object[] = [];
  const log = { ...silentLog, warn: (_message: string, fields?: object) => void logged.push(fields ?? {}) };
  using refusals = new PeerRefusals(log, { nowMs: () => nowMs });
  const refusal = { side: "client", peer: "n2:6200", code: "clock-off", reason: "off", remedy: "set it" } as const;
  for (let second = 0; second <= 60; second++) {
    nowMs = second * 1000;
    tellRefused(refusal);
  }
  expect(logged).toEqual([
    { ...refusal, times: 1 },
    { ...refusal, times: 60 },
  ]);
  tellTrusted("n3:6200");
  expect(refusals.list()).toHaveLength(1);
  tellTrusted("n2:6200");
  expect(refusals.list()).toEqual([]);
  tellRefused(refusal);
  nowMs += 121_000;
  expect(refusals.list()).toEqual([]);
  for (let index = 0; index < 500; index++) tellRefused({ ...refusal, peer: `n${index}` });
  expect(refusals.list()).toHaveLength(64);
});
