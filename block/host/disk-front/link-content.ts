import { RingsteadError } from "../../../common/errors.ts";
import type { NbdPiece } from "../nbd-client.ts";
import type { FileContent } from "./fuse-file.ts";
import { ERROR } from "./fuse-protocol.ts";
import type { VolumeLink } from "./volume-link.ts";

const readOnly = (): RingsteadError =>
  new RingsteadError("daemon-refused", "the volume is read-only", { errorNumber: ERROR.readOnly });

/** The bytes of a read that begins at `offset`, holes as zeros, without a copy where they came in one piece. */
export const bytesOf = (pieces: readonly NbdPiece[], offset: number, length: number): Buffer => {
  const [first] = pieces;
  if (pieces.length === 1 && first?.kind === "data" && first.offset === offset && first.bytes.length === length)
    return first.bytes;
  const bytes = Buffer.alloc(length);
  for (const piece of pieces) if (piece.kind === "data") piece.bytes.copy(bytes, piece.offset - offset);
  return bytes;
};

/** A volume as the content of a file: what lies beyond its end is not read, and cannot be written. */
export const linkContent = (link: VolumeLink, isReadOnly: boolean): FileContent => ({
  get sizeBytes() {
    return link.sizeBytes;
  },
  read: async (offset, length) => {
    const there = Math.max(0, Math.min(length, link.sizeBytes - offset));
    return there === 0 ? [] : [bytesOf(await link.read(offset, there), offset, there)];
  },
  write: (offset, bytes) => (isReadOnly ? Promise.reject(readOnly()) : link.write(offset, bytes)),
  zero: async (offset, length) => {
    if (isReadOnly) throw readOnly();
    const there = Math.max(0, Math.min(length, link.sizeBytes - offset));
    if (there > 0) await link.zero(offset, there);
  },
  flush: () => link.flush(),
});
