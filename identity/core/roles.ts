export type RoleImplication = { readonly priorId: string; readonly impliedId: string };

/** `start` and whatever `next` leads to from there, in any number of steps; cycles are harmless. */
const reachable = (start: Iterable<string>, next: (id: string) => Iterable<string>): Set<string> => {
  const reached = new Set(start);
  // A Set's iteration also visits what is added meanwhile, which makes it the queue.
  for (const id of reached) for (const other of next(id)) reached.add(other);
  return reached;
};

/** `assigned` and every role that they imply, directly or through others. */
export const effectiveRoleIds = (assigned: Iterable<string>, implications: readonly RoleImplication[]): Set<string> => {
  const implied = Map.groupBy(implications, ({ priorId }) => priorId);
  return reachable(assigned, (id) => (implied.get(id) ?? []).map(({ impliedId }) => impliedId));
};

/** `roleIds` and every role that implies one of them, directly or through others: whose holders have them. */
export const impliedByRoleIds = (roleIds: Iterable<string>, implications: readonly RoleImplication[]): Set<string> => {
  const priors = Map.groupBy(implications, ({ impliedId }) => impliedId);
  return reachable(roleIds, (id) => (priors.get(id) ?? []).map(({ priorId }) => priorId));
};

/** The implications that follow from holding `roleId`, each once, the nearest first. In a cycle one of them leads back to `roleId`. */
export const impliedSteps = (roleId: string, implications: readonly RoleImplication[]): RoleImplication[] => {
  const implied = Map.groupBy(implications, ({ priorId }) => priorId);
  return [...effectiveRoleIds([roleId], implications)].flatMap((id) => implied.get(id) ?? []);
};
