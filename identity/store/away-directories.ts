import { codeOf } from "../../common/errors.ts";
import type { Directory } from "./directory.ts";

/** What a list reads of users and groups that are not its subject. */
type ListedDirectory = Pick<Directory, "findUser" | "findGroup" | "groupIdsOf" | "userIdsIn">;

/**
 * For lists that name users and groups of many domains: where one's directory cannot be reached, its names and members are left out, and `onAway`
 * is told, so that the list can say that it is not whole. What a user is asked about, and all that decides on rights, goes to the directory itself:
 * there half an answer would be a wrong one. `groupIdsOf` therefore still throws `directory-unavailable`.
 */
export const passOverAway = (directory: ListedDirectory, onAway: () => void): ListedDirectory => {
  const orElse = async <Found, Other>(reading: Promise<Found>, other: Other): Promise<Found | Other> => {
    try {
      return await reading;
    } catch (thrown) {
      if (codeOf(thrown) !== "directory-unavailable") throw thrown;
      onAway();
      return other;
    }
  };
  return {
    findUser: (id) => orElse(directory.findUser(id), undefined),
    findGroup: (id) => orElse(directory.findGroup(id), undefined),
    groupIdsOf: (userId) => directory.groupIdsOf(userId),
    userIdsIn: (groupId) => orElse(directory.userIdsIn(groupId), []),
  };
};
