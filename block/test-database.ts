import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { runMigrations } from "../common/sql/migrations.ts";
import { openSqlite } from "../common/sql/sqlite.ts";
import { BLOCK_MIGRATIONS } from "./store/migrations.ts";
import type { BlockDatabase, BlockSchema } from "./store/schema.ts";

/** The block service's database, empty, in a file that goes with the test. */
export const testDatabase = async (): Promise<BlockDatabase> => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-block-db-"));
  const database = openSqlite<BlockSchema>(join(folder, "block.db"));
  onTestFinished(async () => {
    await database.destroy();
    rmSync(folder, { recursive: true, force: true });
  });
  await runMigrations(database, BLOCK_MIGRATIONS, 0);
  return database;
};

/** A clock that stands still until it is set. */
export class TestClock {
  now = 1_000_000_000;

  nowMs = (): number => this.now;
}
