import type { Register } from "../../storage-node/wire.ts";

/** What one device said of a name: a member what it holds, a hand-off what it keeps. */
export type DeviceAnswer<D> = { readonly device: D; readonly register: Register | undefined };

/**
 * What is read of what devices said ([H5]), R of them at least; undefined where that is too little to say anything. Nobody but R members can say that nothing is there:
 * hand-offs know only of what they were given.
 */
export const judgeAvailable = <D>(
  members: readonly DeviceAnswer<D>[],
  handOffs: readonly DeviceAnswer<D>[],
  readCount: number,
): { readonly register: Register | undefined; readonly holders: readonly D[] } | undefined => {
  if (members.length + handOffs.length < readCount) return undefined;
  const held = highestAnswer(members);
  const kept = highestAnswer(handOffs);
  if (held.register === undefined && kept.register === undefined && members.length < readCount) return undefined;
  // As copies win when they come home: an earlier version may have been finished since, under a higher ballot.
  if (kept.register === undefined || (held.register?.version ?? "") > kept.register.version) return held;
  if (held.register?.version !== kept.register.version) return kept;
  return { register: held.register, holders: [...held.holders, ...kept.holders] };
};

/** The highest ballot that any of them holds, and those who hold exactly that version, members as they came first. */
const highestAnswer = <D>(
  answers: readonly DeviceAnswer<D>[],
): { readonly register: Register | undefined; readonly holders: readonly D[] } => {
  let highest: Register | undefined;
  for (const { register } of answers) {
    if (register === undefined) continue;
    if (highest === undefined || register.ballot > highest.ballot) highest = register;
    // The same version may be confirmed at one and not at another.
    else if (register.ballot === highest.ballot && register.state !== "accepted") highest = register;
  }
  const holders = answers.filter(({ register }) => register !== undefined && register.version === highest?.version);
  return { register: highest, holders: holders.map(({ device }) => device) };
};
