import type { Shared, SharedAnswer } from "./script.ts";

/**
 * Tasks that are done once for all who ask for them at the same time:
 *
 *     nobody is at it ──join or lead──▶ under way ──lead──▶ another one is under way, which is joined from then on
 *            ▲                              │ └─join──▶ its answer
 *            └────────── it is over ────────┘
 *
 * Nothing is kept of a task that is over: who asks after that begins anew. Requires: no task asks for one of its own key, which it would wait for for ever.
 */
export class SharedTasks {
  readonly #underWay = new Map<string, Promise<SharedAnswer>>();

  /** @param task what it rejects with, all who joined it are told */
  do(key: string, role: "join" | "lead", task: () => Promise<Shared>): Promise<SharedAnswer> {
    const known = this.#underWay.get(key);
    if (known !== undefined && role === "join") return known;
    const { promise, reject, resolve } = Promise.withResolvers<SharedAnswer>();
    this.#underWay.set(key, promise);
    const over = (): void => {
      // Another one may lead by now.
      if (this.#underWay.get(key) === promise) this.#underWay.delete(key);
    };
    task().then(
      (found) => {
        over();
        resolve({ kind: "shared", found });
      },
      (error: unknown) => {
        over();
        reject(error);
      },
    );
    return promise;
  }
}
