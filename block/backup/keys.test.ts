import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openBackupSecret } from "./keys.ts";

test("the secret is made once, for this user alone, and a damaged one is never replaced", () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-backup-key-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "block", "backup.key");
  const secret = openBackupSecret(path, Buffer.alloc(32, 1));
  expect(secret).toHaveLength(32);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(openBackupSecret(path, Buffer.alloc(32, 2)).equals(secret)).toBe(true);
  writeFileSync(path, "half a ke");
  expect(() => openBackupSecret(path, Buffer.alloc(32, 1))).toThrow(
    expect.objectContaining({ code: "backup-key-damaged" }),
  );
});
