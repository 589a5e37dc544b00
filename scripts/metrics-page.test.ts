import { expect, it } from "vitest";
import { joinPages } from "./metrics-page.ts";

it("joins the pages of several processes with one head per family", () => {
  const page = (role: string): string => `# HELP a_total A.\n# TYPE a_total counter\na_total{role="${role}"} 1\n`;
  expect(joinPages([page("x"), "# TYPE b gauge\nb 2\n", page("y")])).toBe(
    '# HELP a_total A.\n# TYPE a_total counter\na_total{role="x"} 1\na_total{role="y"} 1\n# TYPE b gauge\nb 2\n',
  );
});
