import { join } from "node:path";

/** Every name in a device folder. */
export type DevicePaths = {
  readonly root: string;
  readonly identity: string;
  readonly newIdentity: string;
  readonly lock: string;
  readonly log: string;
  readonly large: string;
  readonly index: string;
  readonly runs: string;
  readonly filter: string;
  /** Of the last checkpoint, and of the one before. */
  readonly digests: readonly [string, string];
  readonly newDigests: string;
  /** Damaged bytes that were set aside. */
  readonly quarantine: string;
  /** Where the scrubber is, and what its last round found. */
  readonly scrub: string;
  readonly newScrub: string;
  /** What was found damaged and what became of it, a line each: the present file and the one before. */
  readonly heals: readonly [string, string];
  quarantined(number: number): string;
  segment(slot: number): string;
  newSegment(slot: number): string;
  body(fileId: number): string;
  filterLayer(life: number, number: number): string;
  newFilterLayer(life: number, number: number): string;
};

const SEGMENT_NAME = /^([0-9a-f]{8})\.log$/;
const QUARANTINE_NAME = /^([0-9a-f]{8})\.damaged$/;
const BODY_NAME = /^([0-9a-f]{16})\.body$/;

/** The slot of a segment file's name, undefined for other names. */
export const slotOfName = (name: string): number | undefined => numberIn(SEGMENT_NAME, name);

/** The id of a large body's file name, undefined for other names. */
export const fileIdOfName = (name: string): number | undefined => numberIn(BODY_NAME, name);

/** The number of a file of damaged bytes, undefined for other names. */
export const quarantineNumberOf = (name: string): number | undefined => numberIn(QUARANTINE_NAME, name);

/** The name under which a large body is known outside the engine. */
export const nameOfFileId = (fileId: number): string => `${fileId.toString(16).padStart(16, "0")}.body`;

const numberIn = (pattern: RegExp, name: string): number | undefined => {
  const digits = pattern.exec(name)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
};

/** The paths in the device folder `root`. */
export const devicePaths = (root: string): DevicePaths => {
  const log = join(root, "log");
  const large = join(root, "large");
  const filter = join(root, "filter");
  const layerName = (life: number, number: number): string =>
    join(filter, [life, number].map((part) => part.toString(16).padStart(8, "0")).join("-"));
  const slotName = (slot: number): string => join(log, slot.toString(16).padStart(8, "0"));
  return {
    root,
    identity: join(root, "device.json"),
    newIdentity: join(root, "device.json.new"),
    lock: join(root, "lock"),
    log,
    large,
    index: join(root, "index"),
    runs: join(root, "index.runs"),
    filter,
    digests: [join(root, "digests"), join(root, "digests.old")],
    newDigests: join(root, "digests.new"),
    quarantine: join(root, "quarantine"),
    scrub: join(root, "scrub.json"),
    newScrub: join(root, "scrub.json.new"),
    heals: [join(root, "heals.log"), join(root, "heals.log.old")],
    quarantined: (number) => join(root, "quarantine", `${number.toString(16).padStart(8, "0")}.damaged`),
    segment: (slot) => `${slotName(slot)}.log`,
    newSegment: (slot) => `${slotName(slot)}.new`,
    body: (fileId) => join(large, nameOfFileId(fileId)),
    filterLayer: (life, number) => `${layerName(life, number)}.layer`,
    newFilterLayer: (life, number) => `${layerName(life, number)}.new`,
  };
};
