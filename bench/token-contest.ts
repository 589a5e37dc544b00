import { runtimePaths } from "../common/runtime-paths.ts";
import { measureColdChecks } from "./cold-check.ts";
import { makeContainer, type Session } from "./contender.ts";
import { ContenderWatch } from "./contender-watch.ts";
import type { Measurement } from "./contest.ts";
import { issueToken, passwordLogin, tokenLogin } from "./identity-contender.ts";
import { type LoadPart, objectName, type RequestWork } from "./load.ts";
import type { RingsteadStore } from "./ringstead-contender.ts";
import { runGenerator } from "./run-generator.ts";
import type { TokenRow } from "./token-rows.ts";

/** Live tokens that are used in turn. */
export const TOKENS = 10_000;
/** Voided beforehand, so that there is something to compare each token with. */
const REVOKED_TOKENS = 500;
/** So many are issued or voided at once. */
const AT_ONCE = 16;
/** Every request of the heads is made ready beforehand, as many with one token as with many. */
const OBJECTS = 1_000;
const OBJECT_BYTES = 4096;
const CONTAINER = "tokens";
const FILL_CLIENTS = 32;
const FILL_LIMIT_MS = 120_000;

const inTurn = async <Item, Result>(
  items: readonly Item[],
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> => {
  const results: Result[] = [];
  for (let start = 0; start < items.length; start += AT_ONCE) {
    results.push(...(await Promise.all(items.slice(start, start + AT_ONCE).map(work))));
  }
  return results;
};

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

/** An object store asked with one token, and with many. */
export class TokenContest {
  readonly #store: RingsteadStore;
  readonly #watch: ContenderWatch;
  #session: Session | undefined;
  #live: readonly string[] = [];
  #revoked: readonly string[] = [];

  constructor(store: RingsteadStore) {
    this.#store = store;
    this.#watch = new ContenderWatch(() => store.processes());
  }

  /** See ContenderWatch. */
  measureIdle(): Promise<number> {
    return this.#watch.measureIdle();
  }

  /** Issues the tokens, voids some, and writes the objects. */
  async prepare(): Promise<void> {
    const { identity } = this.#store;
    const first = await issueToken(identity, passwordLogin(identity));
    const issue = () => issueToken(identity, tokenLogin(identity, first));
    this.#revoked = await inTurn(numbers(REVOKED_TOKENS), issue);
    await inTurn(this.#revoked, (token) => this.#revoke(first, token));
    this.#live = await inTurn(numbers(TOKENS), issue);
    if (new Set(this.#live).size !== TOKENS) throw new Error("one token was issued twice");
    this.#session = await this.#store.login();
    await makeContainer(this.#session, CONTAINER);
    const range = { prefix: CONTAINER, suffix: "", first: 0, count: OBJECTS, again: false, sizeBytes: OBJECT_BYTES };
    const work = { kind: "objects", method: "PUT", ...range } as const;
    const { failed, begun } = await this.#load({ container: CONTAINER, work, clients: FILL_CLIENTS }, FILL_LIMIT_MS);
    if (failed > 0 || begun < OBJECTS) throw new Error(`${failed} of ${begun} objects could not be written`);
  }

  /** Heads of objects with `tokens` different tokens in turn. Requires: prepared; tokens ≤ TOKENS. */
  async measureHeads({ clients }: TokenRow, tokens: number, limitMs: number): Promise<Measurement> {
    const { accountPath } = this.#prepared();
    const requests = numbers(TOKENS).map((index): RequestWork => {
      const path = `${accountPath}/${CONTAINER}/${objectName(CONTAINER, index % OBJECTS)}`;
      const token = this.#live[index % tokens] ?? "";
      return { kind: "request", method: "HEAD", path, headers: { "X-Auth-Token": token }, status: 200 };
    });
    await this.#watch.becomeQuiet();
    const work = { kind: "turn", requests, bytesMin: 0 } as const;
    const measured = await this.#watch.cost(() => this.#load({ container: CONTAINER, work, clients }, limitMs));
    return { ...measured, names: undefined, deletedNames: undefined };
  }

  /** Requires: prepared. */
  async measureColdChecks(limitMs: number): Promise<Measurement> {
    const account = this.#prepared().accountPath.split("/").at(-1) ?? "";
    const paths = runtimePaths(this.#store.dataDir);
    await this.#watch.becomeQuiet();
    return measureColdChecks({
      keysDir: paths.identityDir,
      socketPath: paths.socket("control"),
      account,
      live: this.#live,
      revoked: this.#revoked,
      limitMs,
    });
  }

  #prepared(): Session {
    if (this.#session === undefined) throw new Error("tokens and objects are not there yet");
    return this.#session;
  }

  #load(front: LoadPart, limitMs: number) {
    const { host, port, accountPath, token } = this.#prepared();
    return runGenerator("raw", { host, port, token, accountPath, front, limitMs });
  }

  async #revoke(caller: string, token: string): Promise<void> {
    const headers = { "X-Auth-Token": caller, "X-Subject-Token": token };
    const answer = await fetch(`${this.#store.identity.endpoint}/auth/tokens`, { method: "DELETE", headers });
    await answer.arrayBuffer();
    if (answer.status !== 204) throw new Error(`DELETE of a token: status ${answer.status}`);
  }
}
