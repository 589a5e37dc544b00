import { ContenderWatch } from "./contender-watch.ts";
import type { Measurement } from "./contest.ts";
import { type IdentityContender, issueToken, passwordLogin, tokenLogin } from "./identity-contender.ts";
import type { IdentityRow } from "./identity-rows.ts";
import type { RequestWork } from "./load.ts";
import { runGenerator } from "./run-generator.ts";

/** Different tokens that are asked about or asked by: more than a cache of one request's worth would help with. */
const SUBJECTS = 400;
/** So many are issued at once. */
const ISSUING = 8;
/** Tokens live an hour on both sides; younger ones are used again. */
const SUBJECTS_AGE_MAX_MS = 20 * 60 * 1000;
/** Answers may be so much shorter than the first one: identifiers and times vary in length. */
const LENGTH_SHARE_MIN = 0.9;

const JSON_BODY = { "Content-Type": "application/json" };

/** A contender with the tokens that its rows need. */
export class IdentityContest {
  readonly contender: IdentityContender;
  readonly #watch: ContenderWatch;
  #subjects: readonly string[] = [];
  #subjectsMadeMs = Number.NEGATIVE_INFINITY;

  constructor(contender: IdentityContender) {
    this.contender = contender;
    this.#watch = new ContenderWatch(() => contender.processes());
  }

  /** See ContenderWatch. */
  measureIdle(): Promise<number> {
    return this.#watch.measureIdle();
  }

  /** Runs `row` for `limitMs`. */
  async measure(row: IdentityRow, limitMs: number): Promise<Measurement> {
    const requests = await this.#requests(row);
    const bytesMin = await this.#checkedLength(requests);
    await this.#watch.becomeQuiet();
    const work = { kind: "turn", requests, bytesMin } as const;
    const { hostname: host, port } = new URL(this.contender.endpoint);
    const front = { container: "", work, clients: row.clients };
    const spec = { host, port: Number(port), token: "", accountPath: "", front, limitMs };
    const measured = await this.#watch.cost(() => runGenerator("raw", spec));
    return { ...measured, names: undefined, deletedNames: undefined };
  }

  async #requests({ action }: IdentityRow): Promise<RequestWork[]> {
    const path = `${new URL(this.contender.endpoint).pathname}/auth/tokens`;
    const post = (login: object): RequestWork => {
      return { kind: "request", method: "POST", path, headers: JSON_BODY, body: JSON.stringify(login), status: 201 };
    };
    switch (action) {
      case "login-password":
        return [post(passwordLogin(this.contender))];
      case "token-by-token":
        return (await this.#liveSubjects()).map((token) => post(tokenLogin(this.contender, token)));
      case "token-validate": {
        const subjects = await this.#liveSubjects();
        const caller = await issueToken(this.contender, passwordLogin(this.contender));
        return subjects.map((subject): RequestWork => {
          const headers = { "X-Auth-Token": caller, "X-Subject-Token": subject };
          return { kind: "request", method: "GET", path, headers, status: 200 };
        });
      }
    }
  }

  async #liveSubjects(): Promise<readonly string[]> {
    if (performance.now() - this.#subjectsMadeMs < SUBJECTS_AGE_MAX_MS) return this.#subjects;
    const first = await issueToken(this.contender, passwordLogin(this.contender));
    const subjects: string[] = [];
    while (subjects.length < SUBJECTS) {
      const some = Array.from({ length: ISSUING }, () => issueToken(this.contender, tokenLogin(this.contender, first)));
      subjects.push(...(await Promise.all(some)));
    }
    if (new Set(subjects).size !== subjects.length) throw new Error(`${this.contender.name} issued one token twice`);
    this.#subjects = subjects;
    this.#subjectsMadeMs = performance.now();
    return subjects;
  }

  /** Asks the first of `requests` and looks at the answer; returns how long the others have to be at least. */
  async #checkedLength([request]: readonly RequestWork[]): Promise<number> {
    if (request === undefined) throw new Error("a row without a request");
    const { method, path, headers, body, status } = request;
    const url = new URL(path, this.contender.endpoint);
    const answer = await fetch(url, { method, headers, ...(body === undefined ? {} : { body }) });
    const text = await answer.text();
    const token: unknown = answer.status === status ? JSON.parse(text).token : undefined;
    const isWhole = typeof token === "object" && token !== null && "user" in token && "roles" in token;
    if (!isWhole || !("catalog" in token))
      throw new Error(`${this.contender.name}: ${method} ${path}: ${answer.status} ${text}`);
    return Math.floor(Buffer.byteLength(text) * LENGTH_SHARE_MIN);
  }
}
