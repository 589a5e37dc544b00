import { encode } from "msgpackr";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { placementIdentity } from "../ring/base-ring.ts";
import type { Ring } from "../ring/ring.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { BASE_RINGS_KEY } from "./store/keys.ts";
import { readerOf, type Space } from "./wire.ts";

const FORMAT = 1;
const SPACES: readonly Space[] = ["object", "container", "account"];

/** Of each space's ring, in the order of `SPACES`; `identity` undefined in records of older versions. */
type BaseRing = {
  readonly version: number;
  readonly partitionPower: number;
  readonly identity: string | undefined;
};

const decode = (value: Uint8Array): readonly BaseRing[] => {
  const reader = readerOf(value, "base rings");
  if (reader.count() !== FORMAT) throw new RingsteadError("bad-message", "malformed record: base rings");
  const rings = SPACES.map(() => ({ version: reader.count(), partitionPower: reader.count() }));
  return rings.map((ring) => {
    const identity = reader.any();
    return { ...ring, identity: typeof identity === "string" ? identity : undefined };
  });
};

/** What older versions of this read comes first. */
const encodeRings = (rings: readonly BaseRing[]): Uint8Array =>
  encode([
    FORMAT,
    ...rings.flatMap(({ partitionPower, version }) => [version, partitionPower]),
    ...rings.map(({ identity }) => identity),
  ]);

const isSame = (had: BaseRing, has: BaseRing): boolean =>
  has.version === had.version &&
  has.partitionPower === had.partitionPower &&
  (had.identity === undefined || had.identity === has.identity);

/**
 * Keeps with a device which rings its partitions were of epoch 0 at, and refuses others: they would make other devices members of what was never moved. A finer
 * one of a later version may follow, which places nothing elsewhere (`ring/base-ring.ts`). Resolves when that is durable.
 *
 * @throws RingsteadError `base-ring-other`, `bad-message` for a record that no encoder wrote
 */
export const requireBaseRings = async (engine: DeviceEngine, rings: Readonly<Record<Space, Ring>>): Promise<void> => {
  const known = engine.get(BASE_RINGS_KEY);
  const now = SPACES.map((space): BaseRing => {
    const { partitionPower, version } = rings[space];
    return { version, partitionPower, identity: placementIdentity(rings[space]) };
  });
  if (known !== undefined) {
    let isNews = false;
    for (const [index, had] of decode(known.value).entries()) {
      const has = now[index];
      if (has === undefined) continue;
      const isFiner = has.version > had.version && has.partitionPower > had.partitionPower;
      if (isFiner || had.identity === undefined) isNews = true;
      if (isFiner || isSame(had, has)) continue;
      const other = has.version === had.version ? "another one of that version" : `version ${has.version}`;
      throw new RingsteadError(
        "base-ring-other",
        `the device began with version ${had.version} of the ring of ${SPACES[index]}s, and DIR/rings has ${other} as its base: copy DIR/rings/*.base from another node, or from a backup`,
      );
    }
    if (!isNews) return;
  }
  const value = encodeRings(now);
  try {
    await engine.apply([{ kind: "put", key: BASE_RINGS_KEY, value, body: { kind: "none" } }]);
  } catch (error) {
    // A device without room serves what it has; it is kept at a later start.
    if (codeOf(error) !== "device-full" && codeOf(error) !== "device-read-only") throw error;
  }
};
