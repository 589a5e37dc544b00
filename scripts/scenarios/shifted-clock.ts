import { readFileSync } from "node:fs";

/**
 * Loaded into the processes of a node before their own code (`NODE_OPTIONS=--import …`): the file that CLOCK_SHIFT_FILE names says by how many
 * milliseconds the node's clock is wrong, and may be changed while they run, which is a step of the clock. Monotonic time is as it is.
 */
const LOOK_EVERY_MS = 50;

const file = process.env["CLOCK_SHIFT_FILE"] ?? "";
const now = Date.now;
let shiftMs = 0;

const look = (): void => {
  try {
    shiftMs = Number(readFileSync(file, "utf8")) || 0;
  } catch {
    // Nobody has moved it.
  }
};

look();
setInterval(look, LOOK_EVERY_MS).unref();
Date.now = () => now() + shiftMs;
