import { RingsteadError } from "../../common/errors.ts";

/** Nothing was stored, and nothing will be before there is room again: a quorum of the name's devices is full or read-only. */
export const noSpace = (path: string): RingsteadError =>
  new RingsteadError("device-full", "There is no space left to store this.", { path });
