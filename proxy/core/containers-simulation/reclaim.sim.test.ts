import { expect, test } from "vitest";
import { mortalReplica } from "../../../storage-node/scenarios/mortal-replica.ts";
import { ContainersDirector } from "./director.ts";
import { MEMBERS } from "./moving-interleavings.ts";
import { RECLAIM_INTERLEAVINGS } from "./reclaim-interleavings.ts";

const life = { replicas: MEMBERS.length, members: MEMBERS };

for (const { answers, mistake, play, title } of RECLAIM_INTERLEAVINGS) {
  test(title, async () => {
    const director = new ContainersDirector(mortalReplica, undefined, life);
    expect(await play(director)).toEqual(answers);
    expect(await director.conclude()).toBeUndefined();
  });
  test(`the planted mistake is found: ${mistake}, where ${title}`, async () => {
    const director = new ContainersDirector(mortalReplica, mistake, life);
    await play(director);
    expect(await director.conclude()).toBeDefined();
  });
}
