import type { Static, TSchema } from "typebox";
import type { HttpResponse } from "../../common/http/route.ts";
import { validator } from "../../common/http/validate.ts";
import type { Microversion } from "../core/microversion.ts";
import type { Volume } from "../store/volumes.ts";
import type { BlockContext, Caller } from "./block-route.ts";

export const ACCEPTED: HttpResponse = { status: 202 };

export type Asked = {
  readonly context: BlockContext;
  readonly caller: Caller;
  readonly volume: Volume;
  readonly requestId: string;
};

/** One action of `POST /volumes/{id}/action`. */
export type Action = {
  readonly policy: string;
  /** The first microversion that has it. */
  readonly since?: Microversion;
  run(argument: unknown, asked: Asked): Promise<HttpResponse>;
};

export type Actions = Readonly<Record<string, Action>>;

export const action = <const Schema extends TSchema>(
  policy: string,
  schema: Schema,
  run: (argument: Static<Schema>, asked: Asked) => Promise<HttpResponse>,
): Action => {
  const check = validator(schema, "body");
  // The validator has just shown it.
  return { policy, run: (argument, asked) => run(check(argument) as Static<Schema>, asked) };
};
