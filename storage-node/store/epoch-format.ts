import { encode } from "msgpackr";
import { RingsteadError } from "../../common/errors.ts";
import type { EpochState } from "../core/partition-epoch.ts";
import { packConfiguration, readerOf, unpackConfiguration } from "../wire.ts";

/** A device's state in a partition that was moved (FORMAT.md). */
const FORMAT = 1;

export const encodeEpochState = ({ caughtUp, configuration, fateFloor, isSealed }: EpochState): Uint8Array =>
  encode([FORMAT, isSealed ? 1 : 0, caughtUp, fateFloor, ...packConfiguration(configuration)]);

/** Errors: "epoch-damaged" for what no encoder wrote. */
export const decodeEpochState = (value: Uint8Array): EpochState => {
  try {
    const reader = readerOf(value, "epoch");
    if (reader.count() !== FORMAT) throw new RingsteadError("bad-message", "an unknown format");
    const isSealed = reader.flag();
    const caughtUp = reader.integer();
    const fateFloor = reader.timestamp();
    return { isSealed, caughtUp, fateFloor, configuration: unpackConfiguration(reader) };
  } catch (error) {
    if (!(error instanceof RingsteadError)) throw error;
    throw new RingsteadError("epoch-damaged", "what a device knows of a partition's members cannot be decoded");
  }
};
