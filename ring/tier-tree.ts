import type { RingDevice } from "./device.ts";

/** The three kinds of failure domain above the device, outermost first. */
export const TIER_LEVELS = 3;

/** A failure domain, or a device (`deviceId` ≥ 0) as a leaf. */
export type Tree = { readonly tier: number; readonly deviceId: number; readonly children: readonly Tree[] };

/** All devices under regions, zones and nodes; tiers of a level are numbered in the order in which they are met. */
export const buildTree = (devices: readonly (RingDevice | undefined)[]) => {
  type Branch = { tier: number; deviceId: number; children: Branch[]; byName: Map<string, Branch> };
  const tierOf = Array.from({ length: TIER_LEVELS }, () => new Int32Array(devices.length).fill(-1));
  const tierCounts: number[] = Array.from({ length: TIER_LEVELS }, () => 0);
  const branch = (tier: number, deviceId: number): Branch => ({ tier, deviceId, children: [], byName: new Map() });
  const root = branch(0, -1);
  for (const device of devices) {
    if (device === undefined) continue;
    let parent = root;
    for (const [level, name] of [`${device.region}`, `${device.zone}`, device.node].entries()) {
      let child = parent.byName.get(name);
      if (child === undefined) {
        const tier = tierCounts[level] ?? 0;
        tierCounts[level] = tier + 1;
        child = branch(tier, -1);
        parent.byName.set(name, child);
        parent.children.push(child);
      }
      const levelTiers = tierOf[level];
      if (levelTiers !== undefined) levelTiers[device.id] = child.tier;
      parent = child;
    }
    parent.children.push(branch(-1, device.id));
  }
  return { root: root as Tree, tierOf, tierCounts };
};
