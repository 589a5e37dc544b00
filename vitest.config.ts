import { defineConfig } from "vitest/config";
import { whyNoPostgres } from "./common/sql/postgres-fixture.ts";
import { LongestFirst } from "./scripts/longest-first.ts";

const exclude = ["node_modules/**", ".ringstead/**"];

/** Tests of an API whose rows may be on either database. In the project `unit` they are in SQLite. */
const onPostgres = whyNoPostgres() === undefined ? ["identity/api/**/*.test.ts"] : [];

/**
 * A project for each kind that `./scripts/test` can run on its own: pure and contract tests (and with them, once more, tests of APIs on
 * PostgreSQL), simulations, real processes, and real processes on the kernel of a guest.
 */
export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...exclude, "**/*.sim.test.ts", "**/scenarios/**", "**/in-guest/**"],
          testTimeout: 60_000,
          // Vitest leaves a core to itself, of two.
          maxWorkers: 2,
        },
      },
      {
        test: {
          name: "postgres",
          include: onPostgres,
          globalSetup: onPostgres.length > 0 ? ["identity/postgres-for-tests.ts"] : [],
          setupFiles: ["identity/tests-on-postgres.ts"],
          testTimeout: 60_000,
          // Loading the service for each file would take as long as all that it does.
          isolate: false,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: { name: "simulation", include: ["**/*.sim.test.ts"], exclude, testTimeout: 600_000, maxWorkers: 2 },
      },
      {
        test: {
          name: "scenario",
          include: ["**/scenarios/*.test.ts"],
          exclude,
          testTimeout: 600_000,
          hookTimeout: 600_000,
          // Each has an installation of its own, and much of it is waiting; more than two at once would only be slower.
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          // What `scripts/guest/` runs with a kernel of its own, 10 to 20 times as slowly.
          name: "guest",
          include: ["**/in-guest/*.test.ts", "block/host/drivers/mapped-lvm.test.ts"],
          exclude,
          testTimeout: 900_000,
          hookTimeout: 300_000,
          maxWorkers: 1,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
