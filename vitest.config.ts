import { defineConfig } from "vitest/config";

const exclude = ["node_modules/**", ".ringstead/**"];

/** Three projects, so that `./scripts/test` can run each kind on its own: pure and contract tests, simulations, real processes. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["**/*.test.ts"],
          exclude: [...exclude, "**/*.sim.test.ts", "**/scenarios/**"],
          testTimeout: 60_000,
        },
      },
      { test: { name: "simulation", include: ["**/*.sim.test.ts"], exclude, testTimeout: 600_000 } },
      {
        test: {
          name: "scenario",
          include: ["**/scenarios/*.test.ts"],
          exclude,
          testTimeout: 600_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
