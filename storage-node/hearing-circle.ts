import { statSync } from "node:fs";
import { messageOf, RingsteadError } from "../common/errors.ts";
import { loadRing } from "../ring/ring-file.ts";
import type { Ring } from "../ring/ring.ts";
import type { HearingCircle } from "./daemons/epoch-hearing.ts";

const idsIn = ({ devices }: Pick<Ring, "devices">): string[] =>
  devices.flatMap((one) => (one === undefined ? [] : [`${one.node}/${one.device}`]));

/** `ino mtime size` of a file; changes whenever another one is put in its place. */
const stampOf = (path: string): string => {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? "none" : `${stat.ino} ${stat.mtimeNs} ${stat.size}`;
};

/**
 * Gives the devices of some ring files and of the rings of the beginning, the files read again only when they were replaced. A ring that cannot be read may name
 * devices that no other one does, and have taken out some: then whom to ask is not known.
 */
export const circleOfRings = (paths: readonly string[], bases: readonly Ring[]): (() => HearingCircle) => {
  const others = bases.flatMap(idsIn);
  let seen = "";
  let circle: HearingCircle = { required: others, others };
  return () => {
    const stamp = paths.map(stampOf).join();
    if (stamp === seen) return circle;
    seen = stamp;
    try {
      circle = { required: paths.flatMap((path) => idsIn(loadRing(path))), others };
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      circle = { required: others, others, unread: messageOf(error) };
      // It may be readable as it is in a moment.
      seen = "";
    }
    return circle;
  };
};
