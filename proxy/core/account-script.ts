import { type Ballot, NO_INCARNATION } from "../../common/ballot.ts";
import { decodeContainerRecord, encodeContainerRecord, type Register } from "../../storage-node/wire.ts";
import type { Proposed } from "./register-write.ts";
import { confirm, read, type Script, write } from "./script.ts";

type Headers = Readonly<Record<string, string>>;

const RETRY_LIMIT = 10;

const headersIn = (register: Register | undefined): Headers =>
  register === undefined ? {} : decodeContainerRecord(register.metadata).headers;

/** An account's headers by an established read. */
export function* readAccount<S>(
  set: S,
): Script<S, { readonly headers: Headers; readonly version: Ballot | undefined } | "unavailable"> {
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const found = yield* read(set);
    if (found === undefined) return "unavailable";
    const { register, isSettled } = found;
    if (isSettled || register === undefined) return { headers: headersIn(register), version: register?.version };
    if (!(yield* finishAccount(set, register))) return "unavailable";
  }
  return "unavailable";
}

/** Changes the headers. */
export function* postAccount<S>(
  set: S,
  change: (headers: Headers) => Record<string, string>,
): Script<S, "done" | "no-space" | "unknown"> {
  let earlier: Proposed | undefined;
  for (let attempt = 0; attempt < RETRY_LIMIT; attempt++) {
    const outcome = yield* write(
      set,
      {
        kind: "conditional",
        earlier,
        decide: (base) => {
          const headers = change(headersIn(base));
          const metadata = encodeContainerRecord({ status: "open", incarnation: NO_INCARNATION, headers });
          return { isTombstone: false, bodyLength: 0, metadata, body: "none", bodyVersion: undefined };
        },
      },
      NO_INCARNATION,
    );
    if (outcome.kind === "established") {
      yield* confirm(set, outcome.version);
      return "done";
    }
    if (outcome.kind === "no-space") return "no-space";
    if (outcome.kind !== "unfinished" || !(yield* finishAccount(set, outcome.base))) return "unknown";
    earlier = outcome.own;
  }
  return "unknown";
}

/** [R2]: an account has no row anywhere, so what is left unfinished is accepted again and confirmed. False: nothing can be said. */
export function* finishAccount<S>(set: S, register: Register): Script<S, boolean> {
  const { version, ballot, metadata, bodyVersion } = register;
  const record = { isTombstone: false, bodyLength: 0, metadata, body: "none", bodyVersion } as const;
  const outcome = yield* write(set, { kind: "finish", version, ballot, record }, NO_INCARNATION);
  if (outcome.kind === "established") yield* confirm(set, version);
  return outcome.kind !== "unknown";
}
