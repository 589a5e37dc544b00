import { RingsteadError } from "../common/errors.ts";
import { loadBaseRing, OTHER_BASE_REMEDY } from "./base-ring.ts";
import { type CommandOutput, type Subcommand, strings, table } from "./command-words.ts";
import { type MoveStatus, readMoveStatus } from "./move-status.ts";
import { ringDifference } from "./ring-difference.ts";
import { loadRing } from "./ring-file.ts";

/** Which rings an installation has. */
const RING_NAMES = ["object-0", "container", "account"] as const;

type RingStatus = {
  readonly name: string;
  readonly version: number;
  readonly partitions: number;
  /** Changes of one member of one partition between what the installation began with and this ring; none where it is no ring of this installation. */
  readonly changesSinceTheBeginning: number;
  readonly moves: MoveStatus["rings"][string] | undefined;
};

const statusOf = (folder: string, name: string, status: MoveStatus | undefined): RingStatus => {
  const path = `${folder}/${name}.ring`;
  const ring = loadRing(path);
  const base = loadBaseRing(path);
  return {
    name,
    version: ring.version,
    partitions: ring.partitionCount,
    changesSinceTheBeginning: base.hashSeed === ring.hashSeed ? ringDifference(base, ring).moves.length : 0,
    moves: status?.rings[name],
  };
};

const lineOf = ({ changesSinceTheBeginning, moves, name, partitions, version }: RingStatus): string[] => {
  const head = [name, `version ${version}`, `${partitions} partitions`];
  if (moves === undefined) return [...head, "no proxy has said anything of it yet"];
  if (moves.otherBase !== undefined)
    return [...head, `the base of this node is another one than that of ${moves.otherBase}: ${OTHER_BASE_REMEDY}`];
  if (moves.refusal !== undefined) return [...head, `refused, version ${moves.version} counts: ${moves.refusal}`];
  if (moves.version !== version) return [...head, `not taken yet, version ${moves.version} counts`];
  const freeing = moves.entriesToRelease === 0 ? "" : `, ${moves.entriesToRelease} entries to give back`;
  const state =
    moves.toMove === 0
      ? `all in place, ${moves.done} moved${freeing}`
      : `${moves.toMove} to move, ${moves.moving} of them on their way, ${moves.done} moved${freeing}`;
  return [...head, `${state} (${changesSinceTheBeginning} changes since the beginning)`];
};

/** Who moves what there is to move, and how long it will take, as this node's proxy knew last. */
const moverText = (status: MoveStatus | undefined): string => {
  if (status === undefined) return "the proxy of this node has not said anything yet";
  const { at, isMover, rings, secondsLeft } = status;
  const isBusy = Object.values(rings).some(({ entriesToRelease, toMove }) => toMove > 0 || entriesToRelease > 0);
  if (!isBusy) return `nothing is to be moved, as of ${at}`;
  if (!isMover) return `the proxy of another node moves, as of ${at}`;
  return `the proxy of this node moves, ${timeLeftText(secondsLeft)}, as of ${at}`;
};

const timeLeftText = (seconds: number | undefined): string => {
  if (seconds === undefined) return "time left unknown";
  if (seconds < 120) return `about ${seconds} s left`;
  return seconds < 7200 ? `about ${Math.round(seconds / 60)} min left` : `about ${(seconds / 3600).toFixed(1)} h left`;
};

/** `ring status`: exit code 1 where a ring file is refused, or the base is another one than that of others. */
export const statusCommand = (output: CommandOutput, defaultDir: string): Subcommand => ({
  options: { ...strings("data"), json: { type: "boolean" } },
  words: [0, 0],
  run: (_words, options) => {
    const data = typeof options["data"] === "string" ? options["data"] : defaultDir;
    if (data === "") throw new RingsteadError("usage", "which DIR? give --data DIR");
    const folder = `${data}/rings`;
    const status = readMoveStatus(`${folder}/moves.json`);
    const rings = RING_NAMES.map((name) => statusOf(folder, name, status));
    if (options["json"] === true)
      output.out(
        `${JSON.stringify({ at: status?.at, isMover: status?.isMover, secondsLeft: status?.secondsLeft, rings }, undefined, 2)}\n`,
      );
    else output.out(`${table(rings.map(lineOf))}${moverText(status)}\n`);
    return rings.some(({ moves }) => moves?.refusal !== undefined || moves?.otherBase !== undefined) ? 1 : 0;
  },
});
