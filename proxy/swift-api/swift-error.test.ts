import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { answerFor, isForeseen } from "./swift-error.ts";

const CHECKOUT = join(import.meta.dirname, "../..");

/** Thrown before anything is served, or by tools beside the service: they end a process or a command, and no request sees them. */
const NEVER_IN_A_REQUEST = [
  "base-ring-other",
  "device-busy",
  "device-foreign",
  "device-path-not-folder",
  "disk-not-mounted",
  "epoch-damaged",
  "epoch-other-power",
  "format-newer",
  "kept-damaged",
  "invalid-config",
  "no-device",
  "ring-names-unknown-node",
  "ring-too-fine",
  "still-a-member",
  "unknown-key-kind",
  // Of repair, scrubbing and what an operator asks of them.
  "bad-repair-settings",
  "device-starting",
  "index-unreadable",
  "reclaimed-meanwhile",
  "scrub-stopped",
  // Of what splits listings.
  "rows-not-over",
  "sharder-ended",
];

/** Codes as the sources say them: where an error is made, and where its code is chosen beforehand. */
const codesThrown = (): ReadonlyMap<string, string> => {
  const codes = new Map<string, string>();
  for (const file of globSync(["proxy/**/*.ts", "storage-node/**/*.ts", "common/rpc/*.ts"], { cwd: CHECKOUT })) {
    // The other face has words of its own: `../s3-api/s3-server.test.ts`.
    if (/\.test\.ts$|contract\.ts$|^proxy\/s3-api\//.test(file)) continue;
    const text = readFileSync(join(CHECKOUT, file), "utf8");
    const made = text.matchAll(/\b(?:RingsteadError|refuse|refused|fail)\(\s*"([a-z0-9-]+)"/g);
    const chosen = text.matchAll(/\bcode = [^;]*;/g);
    for (const [, code = ""] of made) codes.set(code, file);
    for (const [choice] of chosen)
      for (const [, code = ""] of choice.matchAll(/"([a-z]+(?:-[a-z]+)+)"/g)) codes.set(code, file);
  }
  return codes;
};

test("every error code of proxy, storage node and RPC has an answer on purpose, or never reaches a request", () => {
  const codes = codesThrown();
  expect(codes.size).toBeGreaterThan(50);
  const forgotten = [...codes].filter(([code]) => !isForeseen(code) && !NEVER_IN_A_REQUEST.includes(code));
  expect(forgotten).toEqual([]);
  expect(NEVER_IN_A_REQUEST.filter((code) => isForeseen(code) || !codes.has(code))).toEqual([]);
});

test.each([
  ["device-full", 507],
  ["device-read-only", 507],
  ["device-overloaded", 503],
  ["counters-damaged", 503],
  ["entry-damaged", 503],
  ["staging-full", 503],
  ["clock-ahead", 503],
  ["quorum-unavailable", 503],
  ["bad-message", 500],
])("%s is answered with %i", (code, status) => {
  expect(answerFor(new RingsteadError(code, "device d1 at sector 7")).status).toBe(status);
});

test("what a device says of itself is not told to clients", () => {
  expect(answerFor(new RingsteadError("entry-damaged", "device d1 at sector 7")).message).not.toContain("sector");
  expect(answerFor(new Error("secret")).message).not.toContain("secret");
});
