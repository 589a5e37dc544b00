import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { CHECKOUT } from "./up-options.ts";

/** One folder of the layer table. */
type Layer = {
  readonly folder: string;
  readonly folders: ReadonlySet<string>;
  readonly clients: boolean;
  readonly everything: boolean;
};

/** The picture that ARCHITECTURE.md draws. */
export type Architecture = {
  readonly layers: ReadonlyMap<string, Layer>;
  /** Files of `ring/` and of `core` folders that may import `node:` modules. */
  readonly worldly: ReadonlySet<string>;
  readonly dependencies: ReadonlySet<string>;
};

/** A source file: path from the checkout, with `/`. */
export type Source = { readonly path: string; readonly text: string };

const FORBIDDEN_NAMES = new Set(["utils", "helpers", "misc", "types", "index"]);
const SKIPPED_FOLDERS = new Set(["node_modules", ".git", ".ringstead", ".ci"]);
/** What a client of a service may import of it. */
const CLIENT_FILES = new Set(["client.ts", "wire.ts"]);
/** Files in the checkout itself, which are configuration of tools. */
const TOOL_FILES = new Set(["vitest.config.ts"]);

/** The rows of the table whose first heading is `heading`, cells trimmed. */
const tableRows = (markdown: string, heading: string): string[][] => {
  const lines = markdown.split("\n");
  const start = lines.findIndex((line) => line.startsWith(`| ${heading} |`));
  if (start < 0) return [];
  const end = lines.findIndex((line, index) => index > start && !line.startsWith("|"));
  return lines.slice(start + 2, end < 0 ? undefined : end).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
};

const quoted = (cell: string | undefined): string[] =>
  [...(cell ?? "").matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");

/** Reads the tables of ARCHITECTURE.md. Throws where one of them is not there: then nothing would be checked. */
export const parseArchitecture = (markdown: string): Architecture => {
  const rows = tableRows(markdown, "folder");
  const layers = rows.map(
    ([name, , imports = ""]): Layer => ({
      folder: (quoted(name)[0] ?? "").replace(/\/$/, ""),
      folders: new Set(quoted(imports)),
      clients: /\bclients\b/.test(imports),
      everything: /\beverything\b/.test(imports),
    }),
  );
  const worldly = tableRows(markdown, "file").flatMap(([name]) => quoted(name));
  const dependencies = tableRows(markdown, "package").flatMap(([name]) => quoted(name));
  if (layers.length === 0 || worldly.length === 0 || dependencies.length === 0) {
    throw new Error("ARCHITECTURE.md lacks one of its tables: folder, file, package");
  }
  return {
    layers: new Map(layers.map((layer) => [layer.folder, layer])),
    worldly: new Set(worldly),
    dependencies: new Set(dependencies),
  };
};

/** Blanks comments, so that an example in one is no import; strings keep their text, since specifiers are strings. */
const withoutComments = (text: string): string =>
  text.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\/\*[\s\S]*?\*\/|(?<![:"'`\\/])\/\/[^\n]*/g,
    (whole, string: string | undefined) => (string === undefined ? whole.replace(/[^\n]/g, " ") : whole),
  );

/** Every module specifier of a source, static and dynamic. */
export const importsOf = (text: string): string[] => {
  const code = withoutComments(text);
  const fixed = code.matchAll(/^\s*(?:import|export)\b[^;"'`()]*?["']([^"']+)["']/gm);
  const dynamic = code.matchAll(/\bimport\(\s*["']([^"']+)["']/g);
  return [...fixed, ...dynamic].map((match) => match[1] ?? "");
};

const isAboutWholeHouse = (path: string): boolean => /\.sim\.test\.ts$|(^|\/)scenarios\//.test(path);
const isTest = (path: string): boolean => /\.test\.ts$|\.contract\.ts$/.test(path);

const importProblem = (
  architecture: Architecture,
  layer: Layer,
  path: string,
  specifier: string,
): string | undefined => {
  if (specifier.startsWith("node:")) {
    const isPure = layer.folder === "ring" || path.split("/").slice(0, -1).includes("core");
    if (!isPure || isTest(path) || architecture.worldly.has(path)) return undefined;
    return `imports ${specifier}: this folder decides without the world`;
  }
  if (!specifier.startsWith(".")) return undefined;
  const target = normalize(join(dirname(path), specifier));
  const [folder = "", ...rest] = target.split("/");
  if (folder === layer.folder || layer.everything || layer.folders.has(folder) || isAboutWholeHouse(path))
    return undefined;
  if (folder === ".." || !architecture.layers.has(folder))
    return `imports ${target}, which is in no folder of the layer table`;
  if (layer.clients && architecture.layers.get(folder)?.everything !== true) {
    return rest.length === 1 && CLIENT_FILES.has(rest[0] ?? "")
      ? undefined
      : `imports ${target}: only client.ts and wire.ts of another service`;
  }
  return `imports ${target}: ${layer.folder}/ may not import ${folder}/`;
};

const checkSource = (architecture: Architecture, { path, text }: Source): string[] => {
  const problems: string[] = [];
  const parts = path.split("/");
  const stem = (parts.at(-1) ?? "").split(".")[0] ?? "";
  if (FORBIDDEN_NAMES.has(stem)) problems.push(`is called ${stem}: name the file after the concept in it`);
  if (!/^[a-z0-9-]+$/.test(stem)) problems.push("is not named in kebab-case");
  if (TOOL_FILES.has(path)) return problems;
  const code = withoutComments(text);
  if (/^\s*export\s+default\b/m.test(code)) problems.push("has a default export");
  if (/^\s*export\s+\*/m.test(code)) problems.push("has an export *");
  if (/^\s*(export\s+)?(declare\s+)?(const\s+)?enum\s/m.test(code)) problems.push("has an enum");
  const layer = architecture.layers.get(parts[0] ?? "");
  if (layer === undefined || parts.length < 2) return [...problems, "is in no folder of the layer table"];
  for (const specifier of importsOf(text)) {
    const problem = importProblem(architecture, layer, path, specifier);
    if (problem !== undefined) problems.push(problem);
  }
  return problems;
};

const checkDependencies = (architecture: Architecture, names: readonly string[]): string[] => [
  ...names
    .filter((name) => !architecture.dependencies.has(name))
    .map((name) => `ARCHITECTURE.md: the dependency ${name} has no line that says why`),
  ...[...architecture.dependencies]
    .filter((name) => !names.includes(name))
    .map((name) => `ARCHITECTURE.md: ${name} is no dependency of package.json`),
];

/** Everything that is untidy, one line each. An empty list of sources is a problem of its own. */
export const findProblems = (
  architecture: Architecture,
  sources: readonly Source[],
  dependencies: readonly string[],
): string[] => {
  const inTable = [...architecture.layers.keys()];
  const empty = inTable.filter((folder) => !sources.some(({ path }) => path.startsWith(`${folder}/`)));
  return [
    ...(sources.length === 0 ? ["no source file was found: nothing was checked"] : []),
    ...empty.map((folder) => `ARCHITECTURE.md: ${folder}/ has no source file`),
    ...checkDependencies(architecture, dependencies),
    ...sources.flatMap((source) => checkSource(architecture, source).map((problem) => `${source.path}: ${problem}`)),
  ];
};

const readSources = (folder: string): Source[] =>
  readdirSync(join(CHECKOUT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) return SKIPPED_FOLDERS.has(entry.name) ? [] : readSources(path);
    return path.endsWith(".ts") ? [{ path, text: readFileSync(join(CHECKOUT, path), "utf8") }] : [];
  });

const main = (): number => {
  const architecture = parseArchitecture(readFileSync(join(CHECKOUT, "ARCHITECTURE.md"), "utf8"));
  const manifest = JSON.parse(readFileSync(join(CHECKOUT, "package.json"), "utf8")) as Record<
    string,
    object | undefined
  >;
  const dependencies = Object.keys({ ...manifest["dependencies"], ...manifest["devDependencies"] });
  const sources = readSources("");
  const problems = findProblems(architecture, sources, dependencies);
  for (const problem of problems) process.stdout.write(`${problem}\n`);
  process.stdout.write(`tidy: ${sources.length} files, ${problems.length} problems\n`);
  return problems.length === 0 ? 0 : 1;
};

if (import.meta.main) process.exitCode = main();
