import { encode } from "msgpackr";
import { codeOf, RingsteadError } from "../common/errors.ts";
import type { Ring } from "../ring/ring.ts";
import type { DeviceEngine } from "./engine/device-engine.ts";
import { BASE_RINGS_KEY } from "./store/keys.ts";
import { readerOf, type Space } from "./wire.ts";

const FORMAT = 1;
const SPACES: readonly Space[] = ["object", "container", "account"];

/** Of each space's ring, in the order of `SPACES`: its version and its partition power. */
type BaseRings = readonly { readonly version: number; readonly partitionPower: number }[];

const decode = (value: Uint8Array): BaseRings => {
  const reader = readerOf(value, "base rings");
  if (reader.count() !== FORMAT) throw new RingsteadError("bad-message", "malformed record: base rings");
  return SPACES.map(() => ({ version: reader.count(), partitionPower: reader.count() }));
};

/**
 * Keeps with a device which rings its partitions were of epoch 0 at, and refuses others: they would make other devices members of what was never moved. A finer
 * one of a later version may follow, which places nothing elsewhere (`ring/base-ring.ts`). Resolves when that is durable.
 *
 * @throws RingsteadError `base-ring-other`, `bad-message` for a record that no encoder wrote
 */
export const requireBaseRings = async (engine: DeviceEngine, rings: Readonly<Record<Space, Ring>>): Promise<void> => {
  const known = engine.get(BASE_RINGS_KEY);
  const now = SPACES.map((space) => ({ version: rings[space].version, partitionPower: rings[space].partitionPower }));
  if (known !== undefined) {
    let isFiner = false;
    for (const [index, had] of decode(known.value).entries()) {
      const has = now[index];
      if (has === undefined || (has.version === had.version && has.partitionPower === had.partitionPower)) continue;
      isFiner = has.version > had.version && has.partitionPower > had.partitionPower;
      if (isFiner) continue;
      throw new RingsteadError(
        "base-ring-other",
        `the device began with version ${had.version} of the ring of ${SPACES[index]}s, and DIR/rings has version ${has.version} as its base: copy DIR/rings/*.base from another node, or from a backup`,
      );
    }
    if (!isFiner) return;
  }
  const value = encode([FORMAT, ...now.flatMap(({ partitionPower, version }) => [version, partitionPower])]);
  try {
    await engine.apply([{ kind: "put", key: BASE_RINGS_KEY, value, body: { kind: "none" } }]);
  } catch (error) {
    // A device without room serves what it has; it is kept at a later start.
    if (codeOf(error) !== "device-full" && codeOf(error) !== "device-read-only") throw error;
  }
};
