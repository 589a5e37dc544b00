import { assess } from "./assessment.ts";
import { type Builder, countHeld, countHoles } from "./builder.ts";
import type { RingData } from "./device.ts";
import { ringDifference } from "./ring-difference.ts";
import { tableShape } from "./table-shape.ts";
import { computeTargets } from "./targets.ts";

/** What is the matter with a builder. A problem keeps it from giving a good ring, a remark is for the operator to know. */
export type Finding = { readonly isProblem: boolean; readonly text: string };

/**
 * Looks at a builder, and at the ring file made of it, if there is one. What a damaged file could say besides (devices that are
 * not listed, one twice in a partition) is refused when it is read.
 */
export const validateBuilder = (builder: Builder, ring: RingData | undefined, nowMs: number): readonly Finding[] => [
  ...findingsOfDevices(builder),
  ...findingsOfTimes(builder, nowMs),
  ...(ring === undefined ? [] : findingsOfRing(builder, ring)),
];

const problem = (text: string): Finding => ({ isProblem: true, text });
const remark = (text: string): Finding => ({ isProblem: false, text });

const findingsOfDevices = (builder: Builder): Finding[] => {
  const { devices, partitionPower, replicas, overload } = builder;
  const shape = tableShape(partitionPower, replicas);
  const findings: Finding[] = [];
  const usable = devices.filter((device) => device !== undefined && device.weight > 0).length;
  const holes = countHoles(builder);
  if (holes > 0) findings.push(problem(`${holes} of ${shape.replicaCount} replicas have no device: rebalance`));
  if (usable < shape.width) {
    findings.push(problem(`${replicas} replicas need ${shape.width} devices with weight, there are ${usable}`));
    return findings;
  }
  const held = countHeld(builder);
  for (const device of devices) {
    const count = held[device?.id ?? 0] ?? 0;
    if (device === undefined || device.weight > 0 || count === 0) continue;
    findings.push(remark(`device ${device.id} (${device.node}/${device.device}) is to be emptied and holds ${count}`));
  }
  const targets = computeTargets(devices, { partitionCount: shape.partitionCount, replicas, overload, held });
  const uneven = devices.filter(
    (device) => device !== undefined && Math.abs((held[device.id] ?? 0) - (targets.ofDevice[device.id] ?? 0)) > 1,
  ).length;
  const { balance, dispersion } = assess(builder, shape, targets);
  if (uneven > 0)
    findings.push(
      remark(`${uneven} devices are more than one replica from their share, the furthest by ${balance.toFixed(2)} %`),
    );
  if (dispersion > 0)
    findings.push(remark(`${dispersion.toFixed(2)} % of partitions are not as far apart as the weights allow`));
  return findings;
};

const findingsOfTimes = ({ movedAtSeconds }: Builder, nowMs: number): Finding[] => {
  const future = movedAtSeconds.filter((second) => second * 1000 > nowMs).length;
  return future === 0
    ? []
    : [problem(`${future} partitions moved in the future, and stay where they are until then: set the clock right`)];
};

const findingsOfRing = (builder: Builder, ring: RingData): Finding[] => {
  if (ring.hashSeed !== builder.hashSeed)
    return [problem("the ring file has another hash seed: it is of another builder")];
  if (ring.version > builder.version)
    return [
      problem(`the ring file has version ${ring.version}, the builder ${builder.version}: this is an older builder`),
    ];
  if (countHoles(builder) > 0) return [];
  const { moves } = ringDifference(ring, builder);
  const added = builder.partitionPower - ring.partitionPower;
  return [
    ...(moves.length > 0 ? [remark(`the ring file lags behind the builder by ${moves.length} moves`)] : []),
    ...(added === 0 ? [] : [remark(`the ring file has partition power ${ring.partitionPower}`)]),
  ];
};
