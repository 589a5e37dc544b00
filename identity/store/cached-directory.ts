import type { Directory } from "./directory.ts";
import type { ReadCache } from "./read-cache.ts";

/** A directory whose single users and memberships are looked up once for all requests of a moment. Everything else passes through. */
export const cachedDirectory = (inner: Directory, cache: ReadCache): Directory => ({
  ...inner,
  findUser: (id) => cache.get(`user ${id}`, () => inner.findUser(id)),
  findUserByName: (domainId, name) =>
    cache.get(`user named ${domainId} ${name}`, () => inner.findUserByName(domainId, name)),
  groupIdsOf: (userId) => cache.get(`groups of ${userId}`, () => inner.groupIdsOf(userId)),
});
