import fc from "fast-check";
import { expect, test } from "vitest";
import { codeOf, RingsteadError } from "../common/errors.ts";
import { BUILDER_FILE, decodeBuilder } from "./builder-format.ts";
import type { RingData } from "./device.ts";
import { decodeRing, encodeRing, RING_FILE } from "./format.ts";
import { encodeFrame } from "./frame.ts";

const RUNS = { seed: 20_267, numRuns: 300 };
const CODES = ["ring-file-damaged", "ring-file-foreign", "ring-file-too-new"];

const attempt = <T>(decode: () => T): T | undefined => {
  try {
    return decode();
  } catch (error) {
    if (error instanceof RingsteadError && CODES.includes(error.code)) return undefined;
    throw error;
  }
};

const RING: RingData = {
  version: 3,
  hashSeed: 5n,
  partitionPower: 2,
  replicas: 1,
  devices: [{ id: 0, region: 1, zone: 1, node: "a", device: "d1", weight: 100 }],
  assignments: Uint16Array.of(0, 0, 0, 0),
};

test("any bytes are a ring or builder file, or are refused by name; altered ones always are", () => {
  const sound = encodeRing(RING);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (noise, at, by) => {
      attempt(() => decodeRing(noise));
      attempt(() => decodeBuilder(noise));
      const altered = Uint8Array.from(sound);
      altered[at % altered.length] = (altered[at % altered.length] ?? 0) ^ by;
      for (const other of [
        altered,
        sound.subarray(0, at % sound.length),
        Buffer.concat([sound, noise.subarray(0, 1), Buffer.of(0)]),
      ]) {
        let code: string | undefined;
        try {
          decodeRing(other);
        } catch (error) {
          code = codeOf(error);
        }
        expect(CODES).toContain(code);
      }
    }),
    RUNS,
  );
});

test("a header of any shape behind a fitting checksum is a ring or builder file, or ring-file-damaged", () => {
  const { hashSeed: _, assignments: __, ...fields } = RING;
  const headerLike = fc.oneof(
    fc.jsonValue(),
    fc
      .tuple(fc.constantFrom("version", "hashSeed", "partitionPower", "replicas", "devices"), fc.jsonValue())
      .map(([key, value]) => ({ ...fields, hashSeed: "0000000000000005", [key]: value })),
  );
  fc.assert(
    fc.property(headerLike, fc.uint8Array({ maxLength: 30 }), (given, body) => {
      for (const [kind, decode] of [
        [RING_FILE, decodeRing],
        [BUILDER_FILE, decodeBuilder],
      ] as const) {
        const bytes = encodeFrame(kind, given, body.length, (view) => {
          for (const [index, byte] of body.entries()) view.setUint8(index, byte);
        });
        attempt<unknown>(() => decode(bytes));
      }
    }),
    RUNS,
  );
});
