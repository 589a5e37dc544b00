import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findProblems, importsOf, parseArchitecture, type Source } from "./tidy.ts";
import { CHECKOUT } from "./up-options.ts";

const architecture = parseArchitecture(readFileSync(join(CHECKOUT, "ARCHITECTURE.md"), "utf8"));
const dependencies = [...architecture.dependencies];
/** One tidy file in each folder, so that only what a test adds is untidy. */
const tidySources: readonly Source[] = [...architecture.layers.keys()].map((folder) => ({
  path: `${folder}/a.ts`,
  text: "",
}));
const problemsOf = (path: string, text: string): string[] =>
  findProblems(architecture, [...tidySources, { path, text }], dependencies);

describe("tidy", () => {
  it.each([
    ["ring/b.ts", 'import { x } from "../common/clock.ts";'],
    ["proxy/b.ts", 'import type { A } from "../identity/client.ts";'],
    ["proxy/core/b.sim.test.ts", 'import { D } from "../../storage-node/engine/memory-device.ts";'],
    ["proxy/core/b.test.ts", 'import { readFileSync } from "node:fs";'],
    ["ring/whole-file.ts", 'import { openSync } from "node:fs";'],
    ["scripts/b.ts", 'const { up } = await import("../identity/service.ts");'],
    ["common/b.ts", '// import { x } from "../ring/ring.ts";\n/* export default 1 */'],
  ])("%s may hold %s", (path, text) => {
    expect(problemsOf(path, text)).toEqual([]);
  });

  it.each([
    ["common/b.ts", 'import { x } from "../ring/ring.ts";', "common/ may not import ring/"],
    ["identity/b.ts", 'import { x } from "../ring/ring.ts";', "identity/ may not import ring/"],
    ["proxy/b.ts", 'import {\n  x,\n} from "../storage-node/service.ts";', "only client.ts and wire.ts"],
    ["proxy/b.ts", 'import { x } from "../scripts/tidy.ts";', "proxy/ may not import scripts/"],
    ["ring/b.ts", 'import { readFileSync } from "node:fs";', "decides without the world"],
    ["proxy/core/b.ts", 'const fs = await import("node:fs");', "decides without the world"],
    ["proxy/b.ts", "export default 1;", "default export"],
    ["proxy/b.ts", 'export * from "./c.ts";', "export *"],
    ["proxy/b.ts", "export enum A { B }", "an enum"],
    ["proxy/utils.ts", "", "is called utils"],
    ["proxy/Thing.ts", "", "kebab-case"],
    ["elsewhere/b.ts", "", "in no folder of the layer table"],
    ["b.ts", "", "in no folder of the layer table"],
  ])("%s may not hold %s", (path, text, problem) => {
    expect(problemsOf(path, text).join("\n")).toContain(problem);
  });

  it("fails where it found nothing to check", () => {
    expect(findProblems(architecture, [], dependencies)[0]).toBe("no source file was found: nothing was checked");
    expect(() => parseArchitecture("# Architecture\n")).toThrow("lacks one of its tables");
  });

  it("wants a line for each dependency and a dependency for each line", () => {
    expect(findProblems(architecture, tidySources, [...dependencies, "left-pad"])).toEqual([
      "ARCHITECTURE.md: the dependency left-pad has no line that says why",
    ]);
    expect(findProblems(architecture, tidySources, dependencies.slice(1))).toHaveLength(1);
  });

  it("sees imports of every form", () => {
    const text =
      'import "./a.ts";\nimport b, { c } from "./b.ts";\nexport { d } from "./d.ts";\nconst e = await import("./e.ts");\nconst url = "http://x"; // import "./f.ts"';
    expect(importsOf(text)).toEqual(["./a.ts", "./b.ts", "./d.ts", "./e.ts"]);
  });
});
