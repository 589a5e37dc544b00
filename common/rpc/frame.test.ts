import { expect, test } from "vitest";
import fc from "fast-check";
import { encodeFrame, FRAME_REQUEST, type Frame, FrameDecoder } from "./frame.ts";

test("frames survive any cutting of the stream", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(), fc.string(), fc.uint8Array({ maxLength: 300 })), { minLength: 1, maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 20 }),
      (messages, cuts) => {
        const stream = Buffer.concat(
          messages.flatMap(([id, text, body]) => [
            encodeFrame(FRAME_REQUEST, id, [text], body.length),
            Buffer.from(body),
          ]),
        );
        const frames: Frame[] = [];
        const decoder = new FrameDecoder((frame) => frames.push({ ...frame, body: Buffer.from(frame.body) }));
        let at = 0;
        for (let turn = 0; at < stream.length; turn++) {
          const length = cuts[turn % cuts.length]!;
          decoder.push(stream.subarray(at, at + length));
          at += length;
        }
        expect(frames.map((frame) => [frame.id, frame.header[0], [...frame.body]])).toEqual(
          messages.map(([id, text, body]) => [id, text, [...body]]),
        );
      },
    ),
  );
});

test("bytes of another protocol, and lengths beyond the limits, are refused", () => {
  const decoder = new FrameDecoder(() => {});
  expect(() => decoder.push(Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n"))).toThrow("malformed");
  const huge = encodeFrame(FRAME_REQUEST, 1, [], 0);
  huge.writeUInt32BE(0xffffffff, 12);
  expect(() => new FrameDecoder(() => {}).push(huge)).toThrow("too large");
});

test("the frame's first bytes are those of FORMAT.md", () => {
  expect(encodeFrame(FRAME_REQUEST, 7, [1], 5).toString("hex")).toBe("520200010000000700000002000000059101");
});
