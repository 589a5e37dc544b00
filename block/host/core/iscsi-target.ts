/**
 * What a target daemon (tgtd) has of the volumes of this host, what it should have, and the requests that lead from one to the other. Pure.
 *
 *     absent ──▶ target that lets no initiator in ──▶ disk ──▶ accounts ──▶ initiators
 *     there  ──▶ without accounts that are too many ──▶ with those that are missing ──▶ initiators likewise ──▶ without sessions of those who left
 */
export type ShownTarget = {
  /** The daemon's own number of it. */
  readonly tid: number;
  readonly name: string;
  readonly isReady: boolean;
  /** What its disk is read from; undefined where it has none. */
  readonly path: string | undefined;
  readonly accounts: readonly string[];
  /** Names of initiators, `ALL` for any. */
  readonly initiators: readonly string[];
  readonly sessions: readonly { readonly id: number; readonly initiator: string }[];
};

export type WantedTarget = {
  readonly name: string;
  readonly path: string;
  readonly isReadOnly: boolean;
  /** The same wherever the volume is served: initiators know by it that two paths lead to one disk. */
  readonly serial: string;
  readonly accounts: readonly {
    readonly user: string;
    readonly secret: string;
    /** The initiator that it is for; undefined: any that knows the secret. */
    readonly initiator: string | undefined;
  }[];
};

/** One request to the daemon's control socket. `isDoneAlready`: refusals that say that there is nothing to do. */
export type TargetRequest = {
  readonly mode: "target" | "disk" | "connection" | "account" | "system";
  readonly operation: "new" | "delete" | "show" | "bind" | "unbind" | "update";
  readonly tid?: number;
  readonly sessionId?: number;
  readonly isForced?: boolean;
  /** Pairs as the daemon takes them: `name=value`, no value with a comma. */
  readonly parameters?: readonly (readonly [name: string, value: string])[];
  readonly isDoneAlready?: readonly TargetRefusal[];
};

/** Refusals by their numbers in the daemon's answers (tgt 1.0.85). */
export const TARGET_REFUSALS = {
  "no-target": 4,
  "no-disk": 5,
  "no-session": 6,
  "target-exists": 9,
  "disk-exists": 10,
  "initiator-exists": 12,
  "account-exists": 14,
  "no-account": 15,
  invalid: 17,
  "target-active": 19,
  "disk-active": 20,
} as const;
type TargetRefusal = keyof typeof TARGET_REFUSALS;

const ANY = "ALL";
/** The account whose secret nobody knows: whoever wants to know which targets there are has to log in with it. */
export const NOBODY = "nobody";
const VENDOR = "RINGSTED";
const PRODUCT = "volume";

const trimmedLines = (text: string): readonly string[] => text.replaceAll("\0", "").split("\n");

const wordsAfter = (lines: readonly string[], heading: string): readonly string[] => {
  const at = lines.findIndex((line) => line.trim() === heading);
  if (at < 0) return [];
  const found: string[] = [];
  for (const line of lines.slice(at + 1)) {
    if (!line.startsWith("        ") || line.trim() === "") break;
    found.push(line.trim().split(" ", 1)[0] ?? "");
  }
  return found;
};

const targetIn = (tid: number, name: string, lines: readonly string[]): ShownTarget => {
  const sessions: { id: number; initiator: string }[] = [];
  let [isReady, path, sessionId]: [boolean, string | undefined, number] = [false, undefined, 0];
  for (const line of lines) {
    const [, key = "", value = ""] = /^\s*([^:]+):\s?(.*)$/.exec(line) ?? [];
    if (key === "State") isReady = value === "ready";
    // The first disk is the daemon's own controller, which has none.
    if (key === "Backing store path" && value !== "None") path = value;
    if (key === "I_T nexus") sessionId = Number(value);
    if (key === "Initiator") sessions.push({ id: sessionId, initiator: value.split(" alias:", 1)[0] ?? "" });
  }
  const accounts = wordsAfter(lines, "Account information:");
  return { tid, name, isReady, path, accounts, initiators: wordsAfter(lines, "ACL information:"), sessions };
};

/** Reads what the daemon shows of its targets. */
export const targetsIn = (text: string): readonly ShownTarget[] => {
  const found: ShownTarget[] = [];
  const lines = trimmedLines(text);
  const heads = lines.flatMap((line, index) => (/^Target \d+: /.test(line) ? [index] : []));
  for (const [position, index] of heads.entries()) {
    const [, tid, name] = /^Target (\d+): (.*)$/.exec(lines[index] ?? "") ?? [];
    if (tid !== undefined && name !== undefined)
      found.push(targetIn(Number(tid), name, lines.slice(index + 1, heads[position + 1])));
  }
  return found;
};

const freeTid = (shown: readonly ShownTarget[]): number => {
  const taken = new Set(shown.map(({ tid }) => tid));
  let tid = 1;
  while (taken.has(tid)) tid += 1;
  return tid;
};

/** A target that is offline lets nobody log in, and drops commands of those who have without a word. */
export const stateRequest = (tid: number, state: "ready" | "offline"): TargetRequest => ({
  mode: "target",
  operation: "update",
  tid,
  parameters: [["state", state]],
});

const attributesRequest = (tid: number, { serial, isReadOnly }: WantedTarget): TargetRequest => ({
  mode: "disk",
  operation: "update",
  tid,
  parameters: [
    ["vendor_id", VENDOR],
    ["product_id", PRODUCT],
    ["scsi_sn", serial],
    ["scsi_id", serial],
    ["thin_provisioning", "1"],
    ["readonly", isReadOnly ? "1" : "0"],
  ],
});

/** The disk of a target; its number is 1, as with Cinder's own targets. */
export const diskRequests = (tid: number, wanted: WantedTarget): readonly TargetRequest[] => [
  {
    mode: "disk",
    operation: "new",
    tid,
    parameters: [
      ["path", wanted.path],
      ["bstype", "rdwr"],
    ],
  },
  attributesRequest(tid, wanted),
];

const accountRequests = (tid: number, user: string, secret: string): readonly TargetRequest[] => [
  {
    mode: "account",
    operation: "new",
    parameters: [
      ["user", user],
      ["password", secret],
    ],
    isDoneAlready: ["account-exists"],
  },
  bindRequest(tid, user),
];

const initiatorPair = (initiator: string): readonly [string, string] =>
  initiator === ANY ? ["initiator-address", ANY] : ["initiator-name", initiator];

const initiatorsOf = ({ accounts }: WantedTarget): ReadonlySet<string> =>
  new Set(accounts.map(({ initiator }) => initiator ?? ANY));

const bindRequest = (tid: number, user: string): TargetRequest => ({
  mode: "account",
  operation: "bind",
  tid,
  parameters: [["user", user]],
  isDoneAlready: ["account-exists"],
});

export const deleteAccountRequest = (user: string): TargetRequest => ({
  mode: "account",
  operation: "delete",
  parameters: [["user", user]],
  isDoneAlready: ["no-account"],
});

/**
 * Takes accounts away. tgtd looks for accounts in as many of a target's places as it has accounts: where one of them is empty, the last account
 * cannot log in, and a list of all ends the daemon. So accounts are unbound from the last one down, and those that stay are bound again; for that
 * millisecond a login of theirs is refused. The first place always has `NOBODY`, because a target without accounts lets anybody in.
 */
const removalsOf = (tid: number, bound: readonly string[], gone: ReadonlySet<string>): readonly TargetRequest[] => {
  const above = bound.slice(bound.findIndex((user) => gone.has(user)));
  return [
    ...above.toReversed().map(
      (user): TargetRequest => ({
        mode: "account",
        operation: "unbind",
        tid,
        parameters: [["user", user]],
        isDoneAlready: ["no-account"],
      }),
    ),
    ...[...gone].map(deleteAccountRequest),
    ...above.filter((user) => !gone.has(user)).map((user) => bindRequest(tid, user)),
  ];
};

/** Closes the connections of all sessions; initiators come back and repeat what was not answered. */
export const cutRequests = ({ tid, sessions }: ShownTarget): readonly TargetRequest[] =>
  sessions.map(({ id }) => ({
    mode: "connection",
    operation: "delete",
    tid,
    sessionId: id,
    isDoneAlready: ["no-session"],
  }));

/** Sessions of whom nobody expects any more; all of them where it cannot be told whose they are: those that may come back do. */
const unwantedSessions = (shown: ShownTarget, wanted: WantedTarget): readonly TargetRequest[] => {
  const [before, after] = [new Set(shown.initiators), initiatorsOf(wanted)];
  const isTold = !before.has(ANY) && !after.has(ANY);
  return cutRequests({
    ...shown,
    sessions: shown.sessions.filter(({ initiator }) => !isTold || !after.has(initiator)),
  });
};

/** The requests that make the target what is wanted. */
export const requestsFor = (shown: readonly ShownTarget[], wanted: WantedTarget): readonly TargetRequest[] => {
  const there = shown.find(({ name }) => name === wanted.name);
  const tid = there?.tid ?? freeTid(shown);
  const requests: TargetRequest[] = [];
  if (there === undefined)
    requests.push({ mode: "target", operation: "new", tid, parameters: [["targetname", wanted.name]] });
  if (there?.path === undefined) requests.push(...diskRequests(tid, wanted));
  // Nobody gets in: whoever made the disk may have been killed before he said what it is.
  else if (!there.isReady || (there.initiators.length === 0 && wanted.accounts.length > 0))
    requests.push(attributesRequest(tid, wanted));
  const bound = there?.accounts ?? [];
  const users = new Set([NOBODY, ...wanted.accounts.map(({ user }) => user)]);
  const gone = new Set(bound.filter((user) => !users.has(user)));
  if (!bound.includes(NOBODY)) requests.push(bindRequest(tid, NOBODY));
  if (gone.size > 0) requests.push(...removalsOf(tid, bound, gone));
  for (const { user, secret } of wanted.accounts)
    if (!bound.includes(user)) requests.push(...accountRequests(tid, user, secret));
  const hasInitiators = new Set(there?.initiators);
  const initiators = initiatorsOf(wanted);
  for (const one of hasInitiators)
    if (!initiators.has(one))
      requests.push({ mode: "target", operation: "unbind", tid, parameters: [initiatorPair(one)] });
  for (const one of initiators)
    if (!hasInitiators.has(one))
      requests.push({
        mode: "target",
        operation: "bind",
        tid,
        parameters: [initiatorPair(one)],
        isDoneAlready: ["initiator-exists"],
      });
  // One that somebody held and did not let go has lost commands: initiators repeat them when they come back.
  if (there !== undefined && !there.isReady) requests.push(stateRequest(tid, "ready"), ...cutRequests(there));
  else if (there !== undefined && gone.size > 0) requests.push(...unwantedSessions(there, wanted));
  return requests;
};
