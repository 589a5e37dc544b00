import { Type, type Static } from "typebox";
import { Compile } from "typebox/compile";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { readWholeFile } from "./whole-file.ts";

const RingMoves = Type.Object({
  /** Of the ring that says where data is to be. */
  version: Type.Integer({ minimum: 0 }),
  /** Why the ring file that is there now is not that one. */
  refusal: Type.Optional(Type.String()),
  /** A device that serves and began with another ring than this node has as its base. */
  otherBase: Type.Optional(Type.String()),
  /** Partitions whose members are not those of the ring, those on their way among them. */
  toMove: Type.Integer({ minimum: 0 }),
  moving: Type.Integer({ minimum: 0 }),
  /** Partitions that were ever moved and are where they are to be. */
  done: Type.Integer({ minimum: 0 }),
  /** Entries on devices that do not keep their partitions any more. */
  entriesToRelease: Type.Integer({ minimum: 0 }),
});

/** DIR/rings/moves.json: how far a node's proxy knows that data has come to where the rings want it. */
const MoveStatus = Type.Object({
  /** When the proxy last knew something new, ISO 8601. */
  at: Type.String(),
  /** Whether that proxy moves the data; else another one does. */
  isMover: Type.Boolean(),
  /** Until all is where it is to be, as fast as partitions came there lately; absent where that cannot be told. */
  secondsLeft: Type.Optional(Type.Integer({ minimum: 0 })),
  rings: Type.Record(Type.String(), RingMoves),
});
const schema = Compile(MoveStatus);

export type MoveStatus = Static<typeof MoveStatus>;

/** What stands in the file then. */
export const moveStatusText = (status: MoveStatus): string => `${JSON.stringify(status, undefined, 2)}\n`;

/** Undefined where no proxy has said anything yet. @throws RingsteadError `move-status-damaged` */
export const readMoveStatus = (path: string): MoveStatus | undefined => {
  const damaged = new RingsteadError("move-status-damaged", "this is not what a proxy writes: remove it", { path });
  try {
    return readWholeFile(path, (bytes) => {
      let value: unknown;
      try {
        value = JSON.parse(Buffer.from(bytes).toString());
      } catch {
        throw damaged;
      }
      if (!schema.Check(value)) throw damaged;
      return value;
    });
  } catch (error) {
    if (codeOf(error) === "ring-file-missing") return undefined;
    throw error;
  }
};
