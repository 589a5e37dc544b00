import { Type } from "typebox";
import { blockError } from "../core/block-error.ts";
import type { Microversion } from "../core/microversion.ts";
import { type BlockContext, type BlockRoute, blockRoute, type Caller, enforce } from "./block-route.ts";
import { uuidParams } from "./volume-fields.ts";

/** One of the actions that a thing has: `{"NAME": ARGUMENT}`. */
export type NamedAction<Thing> = {
  readonly policy: string;
  readonly since?: Microversion;
  run(context: BlockContext, thing: Thing, argument: unknown): Promise<void>;
};

/** Answered with 202 once the action is done, or written down. Throws `bad-request` for a body that does not name one action that there is. */
export const namedActionRoutes = <Thing extends { readonly project_id: string }>(route: {
  /** In the plural, of its path. */
  readonly collection: string;
  /** Of the id in the path. */
  readonly idName: string;
  readonly since?: Microversion;
  readonly actions: Readonly<Record<string, NamedAction<Thing>>>;
  /** The thing, if the caller may know that it is there. Throws `not-found`. */
  find(context: BlockContext, caller: Caller, id: string): Promise<Thing>;
}): readonly BlockRoute[] =>
  blockRoute({
    method: "POST",
    path: `/${route.collection}/:${route.idName}/action`,
    since: route.since ?? 0,
    request: { params: uuidParams(route.idName), body: Type.Record(Type.String(), Type.Unknown()) },
    handler: async (request, context, caller) => {
      const names = Object.keys(request.body);
      const [name = ""] = names;
      if (names.length !== 1) throw blockError("bad-request", "The body has to name one action.");
      const found = Object.hasOwn(route.actions, name) ? route.actions[name] : undefined;
      if (found === undefined || caller.version < (found.since ?? 0))
        throw blockError("bad-request", `There is no such action: ${name.slice(0, 100)}`);
      const thing = await route.find(context, caller, request.params[route.idName] ?? "");
      enforce(context, caller, found.policy, thing.project_id);
      await found.run(context, thing, request.body[name]);
      return { status: 202 };
    },
  });
