import { basename } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * Short files with long scenarios. Where vitest has no times of an earlier run, as on a machine that runs the tests once, it begins with the
 * longest files; these would come last, one core waiting for the other.
 */
export const LONG_SCENARIOS: ReadonlySet<string> = new Set([
  "many-files.test.ts",
  "memory.test.ts",
  "mutations.test.ts",
  "outage.test.ts",
  "ring-change.test.ts",
  "rolling-upgrade.test.ts",
  "wiped-device.test.ts",
]);

/** Vitest's order, but for LONG_SCENARIOS, which go first in their project. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const projects = [...new Set(sorted.map(({ project }) => project.name))];
    return projects.flatMap((name) => {
      const own = sorted.filter(({ project }) => project.name === name);
      const isLong = ({ moduleId }: TestSpecification): boolean => LONG_SCENARIOS.has(basename(moduleId));
      return [...own.filter(isLong), ...own.filter((file) => !isLong(file))];
    });
  }
}
