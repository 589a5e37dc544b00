import type { MethodContext } from "./authentication/method.ts";
import { findDomain } from "./authentication/references.ts";
import type { SamlSubject } from "./core/saml/assertion.ts";
import { identityError } from "./core/identity-error.ts";
import type { TokenDetails } from "./token-service.ts";

type GroupNames = SamlSubject["groups"];

const groupsOf = async (
  context: Pick<MethodContext, "directory" | "database" | "cache">,
  { user, federation }: TokenDetails,
): Promise<GroupNames> => {
  const ids = new Set([...(await context.directory.groupIdsOf(user.id)), ...(federation?.groupIds ?? [])]);
  const found = await Promise.all(
    [...ids].map(async (id) => {
      const group = await context.directory.findGroup(id);
      const domain = group && (await findDomain(context, { id: group.domainId }));
      return group === undefined || domain === undefined ? [] : [{ name: group.name, domain: domain.name }];
    }),
  );
  return found.flat().toSorted((left, right) => (left.name < right.name ? -1 : 1));
};

/** What another cloud is told of a token's bearer. Throws `forbidden` for a token without a project. */
export const samlSubjectOf = async (
  context: Pick<MethodContext, "directory" | "database" | "cache">,
  details: TokenDetails,
): Promise<SamlSubject> => {
  const { user, userDomain, scope, roles, methods, issuedAtMs } = details;
  if (scope.kind !== "project") {
    throw identityError(
      "forbidden",
      "You are not authorized to perform the requested action: Use a project scoped token when attempting to create a SAML assertion.",
    );
  }
  return {
    user: user.name,
    userDomain: userDomain.name,
    roles: roles.map(({ name }) => name),
    project: scope.project.name,
    projectDomain: scope.domain.name,
    groups: await groupsOf(context, details),
    byPassword: methods.includes("password"),
    authenticatedAtMs: issuedAtMs,
  };
};
