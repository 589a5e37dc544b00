/** A tag of LVM's on a volume that grows: how many extents it had before. What lies behind them may hold what somebody wrote, until it is erased. */
const GROWING = /^ringstead\.grows\.from\.(\d+)$/;

export const growingTag = (extents: number): string => `ringstead.grows.from.${extents}`;

/** The extents that a volume had before a growth that was begun and not finished; undefined where none was. `tags`: as `lvs` shows them. */
export const growingFrom = (tags: string): number | undefined => {
  const found = tags.split(",").map((tag) => Number(GROWING.exec(tag)?.[1] ?? Number.NaN));
  return found.find((extents) => Number.isSafeInteger(extents));
};
