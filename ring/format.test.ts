import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RingsteadError } from "../common/errors.ts";
import { seededRandom } from "../common/random.ts";
import { buildRing, countHoles } from "./builder.ts";
import { BUILDER_FILE, decodeBuilder, encodeBuilder } from "./builder-format.ts";
import type { RingData } from "./device.ts";
import { decodeRing, encodeRing, RING_FILE } from "./format.ts";
import { encodeFrame, frameChecksum } from "./frame.ts";
import { builderFrom, builderPlan } from "./random-builder.ts";
import { rebalance } from "./rebalance.ts";
import { setReplicas } from "./set-replicas.ts";

const SMALL_RING: RingData = {
  version: 3,
  hashSeed: 0x0123456789abcdefn,
  partitionPower: 2,
  replicas: 2,
  devices: [
    { id: 0, region: 1, zone: 1, node: "a", device: "d1", weight: 100 },
    undefined,
    { id: 2, region: 1, zone: 2, node: "b", device: "d1", weight: 0.5, meta: "rack ü" },
  ],
  assignments: Uint16Array.of(0, 2, 2, 0, 0, 2, 2, 0),
};

const SMALL_RING_HEX = [
  "5253544452494e4701000000e50000007b2276657273696f6e223a332c226861736853656564223a2230313233343536",
  "373839616263646566222c22706172746974696f6e506f776572223a322c227265706c69636173223a322c2264657669",
  "636573223a5b7b22726567696f6e223a312c227a6f6e65223a312c226e6f6465223a2261222c22646576696365223a22",
  "6431222c22776569676874223a3130307d2c6e756c6c2c7b22726567696f6e223a312c227a6f6e65223a322c226e6f64",
  "65223a2262222c22646576696365223a226431222c22776569676874223a302e352c226d657461223a227261636b20c3",
  "bc227d5d7d0000020002000000000002000200000088c91f4167095a7c",
].join("");
const SMALL_BUILDER_HEX = [
  "52535444424c445201000000050100007b2276657273696f6e223a332c226861736853656564223a2230313233343536",
  "373839616263646566222c22706172746974696f6e506f776572223a322c227265706c69636173223a322c226d696e50",
  "617274486f757273223a312c226f7665726c6f6164223a302e312c2264657669636573223a5b7b22726567696f6e223a",
  "312c227a6f6e65223a312c226e6f6465223a2261222c22646576696365223a226431222c22776569676874223a313030",
  "7d2c6e756c6c2c7b22726567696f6e223a312c227a6f6e65223a322c226e6f6465223a2262222c22646576696365223a",
  "226431222c22776569676874223a302e352c226d657461223a227261636b20c3bc227d5d7d000002000200ffff000002",
  "00020000000000000000f1536500000000000000004b8e3bf13e3199ea",
].join("");

const FRACTIONAL_RING: RingData = {
  ...SMALL_RING,
  replicas: 1.25,
  assignments: Uint16Array.of(0, 2, 2, 0xffff, 0, 0xffff, 2, 0xffff),
};
const FRACTIONAL_RING_HEX = [
  "5253544452494e4702000000e80000007b2276657273696f6e223a332c226861736853656564223a2230313233343536",
  "373839616263646566222c22706172746974696f6e506f776572223a322c227265706c69636173223a312e32352c2264",
  "657669636573223a5b7b22726567696f6e223a312c227a6f6e65223a312c226e6f6465223a2261222c22646576696365",
  "223a226431222c22776569676874223a3130307d2c6e756c6c2c7b22726567696f6e223a312c227a6f6e65223a322c22",
  "6e6f6465223a2262222c22646576696365223a226431222c22776569676874223a302e352c226d657461223a22726163",
  "6b20c3bc227d5d7d000002000200ffff0000ffff0200ffff2a8134b52120c95c",
].join("");

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const smallBuilder = () => ({
  ...SMALL_RING,
  devices: [...SMALL_RING.devices],
  minPartHours: 1,
  overload: 0.1,
  assignments: Uint16Array.of(0, 2, 2, 0xffff, 0, 2, 2, 0),
  movedAtSeconds: Uint32Array.of(0, 1_700_000_000, 0, 0),
});

/** The error that `decode` refuses `bytes` with; anything but a RingsteadError fails the test. */
const refusal = (decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array): RingsteadError => {
  try {
    decode(bytes);
  } catch (error) {
    if (error instanceof RingsteadError) return error;
    throw error;
  }
  throw new Error("the bytes were accepted");
};

/** A frame with a right checksum around whatever header and body. */
const frameOf = (header: unknown, assignments: readonly number[], kind = RING_FILE): Uint8Array =>
  encodeFrame(kind, header, assignments.length * 2, (view) => {
    for (const [slot, id] of assignments.entries()) view.setUint16(slot * 2, id, true);
  });

const device = { region: 1, zone: 1, node: "a", device: "d1", weight: 1 };
const header = {
  version: 1,
  hashSeed: "0000000000000001",
  partitionPower: 1,
  replicas: 1,
  devices: [device, null, { ...device, device: "d2" }],
};

describe("the ring file", () => {
  it("has the bytes that FORMAT.md describes", () => {
    expect(hexOf(encodeRing(SMALL_RING))).toBe(SMALL_RING_HEX);
    expect(decodeRing(Buffer.from(SMALL_RING_HEX, "hex"))).toEqual(SMALL_RING);
  });

  it("has the bytes that FORMAT.md describes where some partitions have a replica fewer", () => {
    expect(hexOf(encodeRing(FRACTIONAL_RING))).toBe(FRACTIONAL_RING_HEX);
    expect(decodeRing(Buffer.from(FRACTIONAL_RING_HEX, "hex"))).toEqual(FRACTIONAL_RING);
  });

  it("of format 1, as an earlier Ringstead wrote it, is read and written again byte for byte", () => {
    const bytes = readFileSync(new URL("fixtures/format-1.ring", import.meta.url));
    const ring = decodeRing(bytes);
    expect(ring).toMatchObject({ version: 10, partitionPower: 5, replicas: 3, hashSeed: 0x123456789abcdefn });
    expect(ring.devices.map((one) => one?.node)).toEqual(["n1", "n2", "n3", undefined, "n5", "n7"]);
    expect(hexOf(encodeRing(ring))).toBe(hexOf(bytes));
  });

  it("comes back as it was written, for any ring", () => {
    fc.assert(
      fc.property(builderPlan, (plan) => {
        const builder = builderFrom(plan);
        rebalance(builder, { random: seededRandom(plan.seed), nowMs: 0 });
        const ring = buildRing(builder);
        expect(hexOf(encodeRing(decodeRing(encodeRing(ring))))).toBe(hexOf(encodeRing(ring)));
      }),
      { numRuns: 50 },
    );
  });

  it("is refused when cut short anywhere", () => {
    const bytes = encodeRing(SMALL_RING);
    for (let size = 0; size < bytes.length; size += 1) {
      const error = refusal(decodeRing, bytes.subarray(0, size));
      expect(error.code).toBe("ring-file-damaged");
      expect(error.message).toMatch(/cut short/);
    }
  });

  it("is refused when something was appended", () => {
    expect(refusal(decodeRing, Buffer.concat([encodeRing(SMALL_RING), Buffer.of(0)])).code).toBe("ring-file-damaged");
  });

  it("is refused when any single bit was altered", () => {
    const bytes = encodeRing(SMALL_RING);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const altered = bytes.slice();
      altered[bit >> 3]! ^= 1 << (bit & 7);
      expect(refusal(decodeRing, altered).code).toBe(bit < 64 ? "ring-file-foreign" : "ring-file-damaged");
    }
  });

  it("never meets arbitrary bytes with anything but a RingsteadError", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.boolean(), (noise, withMagic) => {
        const bytes = withMagic ? Buffer.concat([Buffer.from(RING_FILE.magic), noise]) : noise;
        expect(refusal(decodeRing, bytes).code).toMatch(/^ring-file-/);
      }),
    );
  });

  it("is refused when a header is not right although the checksum fits", () => {
    const wrong: unknown[] = [
      null,
      [],
      "ring",
      { ...header, version: -1 },
      { ...header, version: 1.5 },
      { ...header, hashSeed: "1" },
      { ...header, hashSeed: 1 },
      { ...header, partitionPower: 0 },
      { ...header, partitionPower: 25 },
      { ...header, replicas: 0 },
      { ...header, replicas: 1.5 },
      { ...header, replicas: 0.5 },
      { ...header, replicas: 17 },
      { ...header, devices: {} },
      { ...header, devices: [{ ...device, weight: -1 }] },
      { ...header, devices: [{ ...device, node: "" }] },
      { ...header, devices: [{ ...device, node: "a/b" }] },
      { ...header, devices: [{ ...device, zone: 70_000 }] },
      { ...header, devices: [{ ...device, unknown: 1 }] },
      { ...header, unknown: 1 },
    ];
    for (const fault of wrong) expect(refusal(decodeRing, frameOf(fault, [0, 2])).code).toBe("ring-file-damaged");
    expect(decodeRing(frameOf(header, [0, 2])).replicas).toBe(1);
  });

  it("is refused when its assignments are too many, too few, of unknown devices or twice the same", () => {
    const faults: [unknown, number[]][] = [
      [header, [0]],
      [header, [0, 2, 0]],
      [header, [0, 1]],
      [header, [0, 3]],
      [header, [0, 0xffff]],
      [{ ...header, replicas: 2 }, [0, 2, 2, 2]],
    ];
    for (const [head, assignments] of faults)
      expect(refusal(decodeRing, frameOf(head, assignments)).code).toBe("ring-file-damaged");
  });

  it("of a fractional replica count is refused where it cannot be right", () => {
    const kind = { ...RING_FILE, formatVersion: 2 };
    const fractional = { ...header, replicas: 1.5 };
    expect(decodeRing(frameOf(fractional, [0, 2, 2, 0xffff], kind)).replicas).toBe(1.5);
    for (const [head, assignments] of [
      // A third of two partitions; a replica too many; one too few; twice the same; cells that are not there.
      [{ ...header, replicas: 1 + 1 / 3 }, [0, 2, 2, 0xffff]],
      [fractional, [0, 2, 2, 0]],
      [fractional, [0, 0xffff, 2, 0xffff]],
      [fractional, [2, 2, 2, 0xffff]],
      [fractional, [0, 2, 2]],
    ] as const)
      expect(refusal(decodeRing, frameOf(head, assignments, kind)).code).toBe("ring-file-damaged");
    const message = refusal(decodeRing, frameOf(fractional, [0, 2, 2, 0xffff], { ...kind, formatVersion: 1 })).message;
    expect(message).toMatch(/has 1.5 replicas, which its format 1 does not know/);
  });

  it("is refused by name when a newer Ringstead has written it", () => {
    const error = refusal(decodeRing, frameOf(header, [0, 2], { ...RING_FILE, formatVersion: 3 }));
    expect(error.code).toBe("ring-file-too-new");
    expect(error.fields).toMatchObject({ formatVersion: 3, supported: 2 });
    expect(refusal(decodeRing, frameOf(header, [0, 2], { ...RING_FILE, formatVersion: 0 })).code).toBe(
      "ring-file-damaged",
    );
  });

  it("is refused when its header claims to be longer than the file", () => {
    const bytes = frameOf(header, [0, 2]);
    const view = new DataView(bytes.buffer);
    view.setUint32(12, 0xffffffff, true);
    view.setBigUint64(bytes.length - 8, frameChecksum(bytes.subarray(0, -8)), true);
    expect(refusal(decodeRing, bytes).message).toMatch(/header has 4294967295 bytes/);
  });
});

describe("the checksum", () => {
  it("chains blocks, so that exchanging two of them shows", () => {
    const mebibyte = 1024 * 1024;
    const [first, second] = [new Uint8Array(mebibyte).fill(1), new Uint8Array(mebibyte).fill(2)];
    expect(frameChecksum(Buffer.concat([first, second]))).not.toBe(frameChecksum(Buffer.concat([second, first])));
  });
});

describe("the builder file", () => {
  it("of format 1, as an earlier Ringstead wrote it, is read, written again byte for byte, and goes on", () => {
    const bytes = readFileSync(new URL("fixtures/format-1.builder", import.meta.url));
    const builder = decodeBuilder(bytes);
    expect(hexOf(encodeBuilder(builder))).toBe(hexOf(bytes));
    expect(builder).toMatchObject({ version: 12, replicas: 3, overload: 0.1, minPartHours: 1 });
    expect(countHoles(builder)).toBe(11);
    setReplicas(builder, 2.5);
    rebalance(builder, { random: seededRandom(1n), nowMs: 2_000_000_000_000 });
    expect(decodeBuilder(encodeBuilder(builder))).toEqual(builder);
    expect(encodeBuilder(builder)[8]).toBe(2);
  });

  it("has the bytes that FORMAT.md describes", () => {
    expect(hexOf(encodeBuilder(smallBuilder()))).toBe(SMALL_BUILDER_HEX);
    expect(decodeBuilder(Buffer.from(SMALL_BUILDER_HEX, "hex"))).toEqual(smallBuilder());
  });

  it("is refused when cut short or altered, and is no ring file", () => {
    const bytes = encodeBuilder(smallBuilder());
    for (let size = 0; size < bytes.length; size += 1)
      expect(refusal(decodeBuilder, bytes.subarray(0, size)).code).toBe("ring-file-damaged");
    for (let index = 0; index < bytes.length; index += 1) {
      const altered = bytes.slice();
      altered[index]! ^= 0x40;
      expect(refusal(decodeBuilder, altered).code).toBe(index < 8 ? "ring-file-foreign" : "ring-file-damaged");
    }
    expect(refusal(decodeRing, bytes).code).toBe("ring-file-foreign");
    expect(refusal(decodeBuilder, frameOf(header, [0, 2], BUILDER_FILE)).code).toBe("ring-file-damaged");
  });
});
