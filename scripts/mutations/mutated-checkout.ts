import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHECKOUT } from "../up-options.ts";
import { LONG_LIFE_SEEDS, type Mutation, SEEDED_TEST, SEEDS_LIMIT, SIMULATION_FILES } from "./mutations.ts";

/** What the simulations are made of. */
const SOURCES = ["common", "ring", "storage-node", "proxy", "identity", "package.json", "tsconfig.json"];
const VITEST_CONFIG = `export default { test: { include: ["**/*.test.ts"], testTimeout: 3_600_000 } };\n`;

/** A copy of the sources in which one mistake was made. Disposal removes it. */
export class MutatedCheckout implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), "ringstead-mutation-"));
  readonly #mutation: Mutation;

  /** Throws where the sources no longer have the place that the mutation names. */
  constructor(mutation: Mutation) {
    this.#mutation = mutation;
    for (const name of SOURCES) cpSync(join(CHECKOUT, name), join(this.#folder, name), { recursive: true });
    symlinkSync(join(CHECKOUT, "node_modules"), join(this.#folder, "node_modules"));
    writeFileSync(join(this.#folder, "vitest.config.ts"), VITEST_CONFIG);
    const path = join(this.#folder, mutation.file);
    const parts = readFileSync(path, "utf8").split(mutation.from);
    if (parts.length !== 2)
      throw new Error(`${mutation.file} has ${parts.length - 1} places like those of "${mutation.title}", not one`);
    writeFileSync(path, parts.join(mutation.to));
  }

  /** Whether the simulation finds the mistake, and at which seed. */
  async find(
    seeds = SEEDS_LIMIT,
  ): Promise<{ readonly isFound: boolean; readonly seed: number | undefined; readonly output: string }> {
    const vitest = join(CHECKOUT, "node_modules", "vitest", "vitest.mjs");
    if (this.#mutation.simulation === "played") {
      const { code, output } = await this.#run([vitest, "run", ...this.#mutation.tests], { NO_COLOR: "1" });
      // One that does not even run finds nothing.
      return { isFound: code !== 0 && /Tests +\d+ failed/.test(output), seed: undefined, output };
    }
    const { firstSeed, simulation } = this.#mutation;
    if (simulation === "long-life") {
      const { output } = await this.#run([LONG_LIFE_SEEDS, String(firstSeed), String(firstSeed + seeds)]);
      const seed = /"failure":\{"seed":"(\d+)"/.exec(output)?.[1];
      return { isFound: seed !== undefined, seed: seed === undefined ? undefined : Number(seed), output };
    }
    const words = [vitest, "run", "--bail=1", SIMULATION_FILES[simulation], "-t", SEEDED_TEST[simulation]];
    const { code, output } = await this.#run(words, { SEED: String(firstSeed), SEEDS: String(seeds), NO_COLOR: "1" });
    const seed = /SEED=(\d+)/.exec(output)?.[1];
    return { isFound: code !== 0 && seed !== undefined, seed: seed === undefined ? undefined : Number(seed), output };
  }

  async #run(
    words: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): Promise<{ readonly code: number | null; readonly output: string }> {
    const child = spawn(process.execPath, words, {
      cwd: this.#folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...environment },
    });
    const chunks: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk));
    const code = await new Promise<number | null>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    return { code, output: Buffer.concat(chunks).toString() };
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
