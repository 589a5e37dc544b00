import fc from "fast-check";
import { expect, test } from "vitest";
import { RingsteadError } from "../errors.ts";
import { encodeFrame, FRAME_REPLY, type Frame, FrameDecoder } from "./frame.ts";

const RUNS = { seed: 20_260, numRuns: 400 };

/** The frames that a peer's bytes make, or the error that ends its connection. */
const decoded = (chunks: readonly Uint8Array[], isReused: boolean): Frame[] | string => {
  const frames: Frame[] = [];
  const decoder = new FrameDecoder((frame) => frames.push(frame));
  try {
    for (const chunk of chunks) decoder.push(Buffer.from(chunk), isReused);
    return frames;
  } catch (error) {
    if (error instanceof RingsteadError) return error.code;
    throw error;
  }
};

test("any bytes from a peer are frames, an unfinished frame, or rpc-malformed", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), fc.boolean(), (chunks, isReused) => {
      const result = decoded(chunks, isReused);
      expect(Array.isArray(result) || result === "rpc-malformed").toBe(true);
    }),
    RUNS,
  );
});

test("a sound prefix before any header and body is no more than rpc-malformed", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.uint8Array({ maxLength: 50 }), (header, body) => {
      const frame = encodeFrame(FRAME_REPLY, 1, [], body.length).subarray(0, 16);
      frame.writeUInt32BE(header.length, 8);
      const result = decoded([frame, header, body], false);
      if (!Array.isArray(result)) expect(result).toBe("rpc-malformed");
      else expect(result.map(({ header: fields }) => Array.isArray(fields))).toEqual([true]);
    }),
    RUNS,
  );
});

test("a frame with some bytes changed is a frame, unfinished, or rpc-malformed", () => {
  const changes = fc.array(fc.tuple(fc.nat({ max: 120 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.jsonValue(), fc.uint8Array({ maxLength: 60 }), changes, (value, body, altered) => {
      const bytes = Buffer.concat([encodeFrame(FRAME_REPLY, 7, [value], body.length), body]);
      for (const [at, byte] of altered) if (at < bytes.length) bytes[at] = byte;
      const result = decoded([bytes], true);
      expect(Array.isArray(result) || result === "rpc-malformed").toBe(true);
    }),
    RUNS,
  );
});
