export type RoleImplication = { readonly priorId: string; readonly impliedId: string };

/** `assigned` and every role that they imply, directly or through others; cycles are harmless. */
export const effectiveRoleIds = (assigned: Iterable<string>, implications: readonly RoleImplication[]): Set<string> => {
  const reached = new Set(assigned);
  // A Set's iteration also visits what is added meanwhile, which makes it the queue.
  for (const prior of reached) {
    for (const { priorId, impliedId } of implications) if (priorId === prior) reached.add(impliedId);
  }
  return reached;
};
