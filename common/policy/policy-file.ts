import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Yaml from "yaml";
import { type Clock, systemClock } from "../clock.ts";
import { messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import { loadPolicy, type PolicyEngine, type PolicyRule } from "./policy-engine.ts";
import { isPolicyError, policyError } from "./policy-error.ts";

/** Longest policy file, in bytes; all of OpenStack's identity rules with their comments have 100 KiB. */
export const MAX_POLICY_FILE_BYTES = 256 * 1024;
/** Most rules in one file. */
export const MAX_POLICY_FILE_RULES = 2_000;
/** How often the file is looked at, at most. */
const LOOK_INTERVAL_MS = 1_000;

/** Loaded where there is a file to be read, which is seldom: it costs a process 4 MB. */
const yaml = (): typeof Yaml => {
  library ??= createRequire(import.meta.url)("yaml") as typeof Yaml;
  return library;
};
let library: typeof Yaml | undefined;

/** A check string as the file has it, and the line that it begins in, from 1. */
type FileRule = { readonly check: string; readonly line: number };

/**
 * The check string of one entry. Tags are refused because `name: !` is one: YAML would read an empty text, which allows everybody
 * what was to be forbidden to all; and nothing at all (null) because it would do the same.
 */
const checkOf = (node: unknown): string | undefined => {
  if (!yaml().isScalar(node) || typeof node.value !== "string") return undefined;
  return node.tag === undefined ? node.value : undefined;
};

/**
 * Reads the text of a policy file: one YAML or JSON mapping of rule names to check strings, without aliases, tags and duplicates.
 * Throws `invalid-policy` with file, line and rule; the checks are not parsed yet.
 */
export const parsePolicyFile = (text: string, file: string): ReadonlyMap<string, FileRule> => {
  const { isMap, isNode, LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const refuse = (position: number | undefined, message: string, fields: Record<string, unknown> = {}): never => {
    const line = position === undefined ? 1 : lines.linePos(position).line;
    throw policyError(`${file}:${line}: ${message}`, { file, line, ...fields });
  };
  const document = parseDocument(text, {
    lineCounter: lines,
    // Not "silent", which would also drop the error that there is a second document.
    logLevel: "error",
    prettyErrors: false,
    // The library compares every key with every other; the map below does it at once.
    uniqueKeys: false,
  });
  const [mistake] = [...document.errors, ...document.warnings];
  if (mistake !== undefined) refuse(mistake.pos[0], mistake.message);
  const rules = new Map<string, FileRule>();
  const { contents } = document;
  if (contents === null) return rules;
  if (!isMap(contents)) return refuse(contents.range?.[0], "a mapping of rule names to check strings is needed");
  for (const { key, value } of contents.items) {
    const position = isNode(key) ? key.range?.[0] : contents.range?.[0];
    const name = checkOf(key);
    if (name === undefined) return refuse(position, "the name of a rule has to be a text");
    if (rules.has(name)) refuse(position, `${name}: stands here twice`, { rule: name });
    if (rules.size >= MAX_POLICY_FILE_RULES) refuse(position, `more than ${MAX_POLICY_FILE_RULES} rules`);
    const check =
      checkOf(value) ?? refuse(position, `${name}: needs a check string in quotes: "@", "!", "role:…"`, { rule: name });
    rules.set(name, { check, line: position === undefined ? 1 : lines.linePos(position).line });
  }
  return rules;
};

/** The identity of a file's content as far as `stat` tells: what changes when somebody writes it. */
type Look =
  | { readonly kind: "absent" }
  | { readonly kind: "present"; readonly signature: string; readonly sizeBytes: number }
  | { readonly kind: "failed"; readonly signature: string };

const lookAt = (file: string): Look => {
  try {
    const stat = statSync(file, { throwIfNoEntry: false, bigint: true });
    if (stat === undefined) return { kind: "absent" };
    // Reading a pipe would wait for its writer.
    if (!stat.isFile()) return { kind: "failed", signature: "is not a file" };
    return {
      kind: "present",
      signature: `${stat.ino} ${stat.mtimeNs} ${stat.size}`,
      sizeBytes: Number(stat.size),
    };
  } catch (error) {
    return { kind: "failed", signature: messageOf(error) };
  }
};

export type PolicyFileOptions = {
  /** Where overrides may be; `runtimePaths(dir).policyFile(service)`. */
  readonly file: string;
  readonly defaults: readonly PolicyRule[];
  readonly log: Log;
  readonly clock?: Clock;
};

const textOf = (file: string): string => {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw policyError(`${file}: ${messageOf(error)}`, { file });
  }
};

const loadFile = (look: Look, { file, defaults, log }: PolicyFileOptions): PolicyEngine => {
  if (look.kind === "absent") return loadPolicy(defaults).engine;
  if (look.kind === "failed") throw policyError(`${file}: ${look.signature}`, { file });
  if (look.sizeBytes > MAX_POLICY_FILE_BYTES) {
    throw policyError(`${file}: longer than ${MAX_POLICY_FILE_BYTES} bytes`, { file });
  }
  const rules = parsePolicyFile(textOf(file), file);
  try {
    const { engine, unusedNames } = loadPolicy(defaults, new Map([...rules].map(([name, { check }]) => [name, check])));
    for (const name of unusedNames) {
      const line = rules.get(name)?.line;
      log.warn("the policy file has a rule that is not one of this service; it is ignored", { file, rule: name, line });
    }
    log.info("policy file read", { file, rules: rules.size - unusedNames.length });
    return engine;
  } catch (error) {
    if (!isPolicyError(error)) throw error;
    const line = rules.get(String(error.fields["rule"]))?.line;
    throw policyError(`${file}${line === undefined ? "" : `:${line}`}: ${error.message}`, {
      ...error.fields,
      file,
      line,
    });
  }
};

/**
 * The policy of a service under an operator's file, which is looked at when a decision is asked for, at most once a second, and read
 * again when it changed. A file that is wrong leaves the rules in force that held, and is complained about once; one that is
 * wrong from the beginning throws `invalid-policy`, since the defaults may allow what its writer forbids. Without a file, or after
 * it was removed, the defaults hold.
 */
export const openPolicyFile = (options: PolicyFileOptions): PolicyEngine => {
  const { file, log, clock = systemClock } = options;
  let look = lookAt(file);
  let engine = loadFile(look, options);
  let lookedMs = clock.nowMs();

  const follow = (nowMs: number): void => {
    lookedMs = nowMs;
    const next = lookAt(file);
    const isSame =
      next.kind === look.kind &&
      (next.kind === "absent" || look.kind === "absent" || next.signature === look.signature);
    if (isSame) return;
    look = next;
    try {
      engine = loadFile(next, options);
      if (next.kind === "absent") log.info("policy file removed, the defaults hold", { file });
    } catch (error) {
      if (!isPolicyError(error)) throw error;
      log.error("the policy file is wrong; the rules that held stay in force until it is corrected", {
        file,
        reason: error.message,
      });
    }
  };

  return {
    allows: (name, credentials, target) => {
      const nowMs = clock.nowMs();
      // A clock that was set back must not keep us from looking for as long as it was set back.
      if (nowMs - lookedMs >= LOOK_INTERVAL_MS || nowMs < lookedMs) follow(nowMs);
      return engine.allows(name, credentials, target);
    },
  };
};
