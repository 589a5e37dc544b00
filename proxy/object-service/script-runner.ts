import { RingsteadError } from "../../common/errors.ts";
import type { Answer, Effect, Script } from "../core/script.ts";
import { SharedTasks } from "../core/shared-tasks.ts";
import type { RegisterIo } from "./register-io.ts";
import type { WriteBody } from "./register-send.ts";
import type { ReplicaSet } from "./partition.ts";
import type { RowReader } from "./row-reader.ts";

const NO_BODY: WriteBody = { kind: "none" };
const noPause = async (): Promise<undefined> => undefined;

/** Runs the scripts of `core/` over the network: one awaited message exchange per effect, and nothing decided here. */
export class ScriptRunner {
  readonly #io: RegisterIo;
  readonly #rows: RowReader;
  readonly #tasks = new SharedTasks();

  constructor(io: RegisterIo, rows: RowReader) {
    this.#io = io;
    this.#rows = rows;
  }

  /**
   * @param body what goes with the records whose body is "given"
   * @param pause lets others go first, where a script goes on for long
   */
  async run<T>(script: Script<ReplicaSet, T>, body: WriteBody = NO_BODY, pause = noPause): Promise<T> {
    let step = script.next();
    while (step.done !== true) {
      const answer = step.value.kind === "pause" ? pause() : this.#perform(step.value, body);
      step = script.next(answer === undefined ? undefined : await answer);
    }
    return step.value;
  }

  /** A promise only where there is something to wait for. */
  #perform(effect: Exclude<Effect<ReplicaSet>, { kind: "pause" }>, body: WriteBody): Promise<Answer> | undefined {
    switch (effect.kind) {
      case "write":
        return this.#io.write(effect.set, effect.mode, body, effect.incarnation);
      case "read":
        return this.#io.read(effect.set, 0).catch((error: unknown) => {
          if (error instanceof RingsteadError && error.code === "quorum-unavailable") return undefined;
          throw error;
        });
      case "row":
        return this.#io.row(effect.set, effect.incarnation, effect.row, effect.isPlaced);
      case "rows":
        return this.#io.rows(effect.set, effect.incarnation, effect.rows, effect.mark);
      case "share": {
        const { role, set, task } = effect;
        const { path, space } = set.name;
        return this.#tasks.do(`${space} ${path}`, role, () => this.run(task()));
      }
      case "list":
        return this.#rows.ask(effect.set, effect.incarnation, effect.query, effect.fromAll);
      case "repair":
        this.#rows.repair(effect.set, effect.incarnation, effect.replica, effect.row);
        return undefined;
      case "confirm":
        this.#io.confirm(effect.set, effect.version, effect.isVoid);
        return undefined;
    }
  }
}
