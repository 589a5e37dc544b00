import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { identityPaths, type IdentityPaths } from "./paths.ts";
import { openSigningKeys } from "./signing-keys.ts";

const LIVE_MS = 3_600_000;

let folder: string;
let paths: IdentityPaths;
let nowMs: number;
const clock = { nowMs: () => nowMs };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-keys-"));
  paths = identityPaths(folder);
  nowMs = 1_800_000_000_000;
});

afterEach(() => rmSync(folder, { recursive: true }));

const published = (): string[] =>
  (JSON.parse(readFileSync(paths.publicKeys, "utf8")) as { keys: { kid: string }[] }).keys.map(({ kid }) => kid);

test("a new key is published at once, signs 15 s later, and the old one goes when its last token has ended", async () => {
  const keys = await openSigningKeys(paths, clock);
  const first = keys.current().kid;
  nowMs += 1_000;
  const second = keys.rotate();
  expect(published()).toEqual([first, second]);
  expect(keys.current().kid).toBe(first);
  nowMs += 15_000;
  expect(keys.current().kid).toBe(second);
  nowMs += LIVE_MS;
  expect(keys.retire(LIVE_MS)).toBe(0);
  nowMs += 1;
  expect(keys.retire(LIVE_MS)).toBe(1);
  expect([published(), readdirSync(paths.keysDir).length]).toEqual([[second], 1]);
});

test("keys outlive a restart, in their order, though the clock was set back", async () => {
  const keys = await openSigningKeys(paths, clock);
  nowMs -= 60_000;
  const second = keys.rotate();
  nowMs += 120_000;
  const again = await openSigningKeys(paths, clock);
  expect(again.current().kid).toBe(second);
  expect(published()).toHaveLength(2);
});
