import { expect, test } from "vitest";
import { decodeTargetAnswer, encodeTargetRequest } from "./target-message.ts";

const answer = (code: number, text = ""): Buffer => {
  const bytes = Buffer.alloc(8 + text.length);
  bytes.writeUInt32LE(code, 0);
  bytes.writeUInt32LE(bytes.length, 4);
  bytes.write(text, 8);
  return bytes;
};

test("a request has the bytes that tgtadm 1.0.85 sends", () => {
  const bytes = encodeTargetRequest({
    mode: "account",
    operation: "new",
    parameters: [
      ["user", "u"],
      ["password", "p"],
    ],
  });
  const zeros = (count: number): string => "00".repeat(count);
  expect(bytes.toString("hex")).toBe(
    `0700000000000000${Buffer.from("iscsi").toString("hex")}${zeros(59)}8a000000ffffffff${zeros(8)}${"ff".repeat(8)}${zeros(24)}` +
      Buffer.from("user=u,password=p\0").toString("hex"),
  );
  const disk = encodeTargetRequest({ mode: "disk", operation: "delete", tid: 3 });
  expect([disk.length, disk.readInt32LE(76), disk.readBigUInt64LE(88)]).toEqual([120, 3, 1n]);
  expect(encodeTargetRequest({ mode: "target", operation: "delete", tid: 3, isForced: true }).readUInt32LE(116)).toBe(
    1,
  );
});

test("a value that would be read as two parameters is refused", () => {
  const request = { mode: "account", operation: "new", parameters: [["user", "u,password=mine"]] } as const;
  expect(() => encodeTargetRequest(request)).toThrow("commas");
});

test("a refusal is an error without the parameters, unless it says that it is done already", () => {
  const request = { mode: "account", operation: "new", parameters: [["password", "secret"]] } as const;
  expect(() => decodeTargetAnswer(answer(14), request)).toThrow(
    /^the iSCSI daemon refused new of a account: account-exists$/,
  );
  expect(decodeTargetAnswer(answer(14), { ...request, isDoneAlready: ["account-exists"] })).toBe("");
  expect(() => decodeTargetAnswer(answer(77), request)).toThrow("error 77");
  expect(() => decodeTargetAnswer(answer(0, "text").subarray(0, 10), request)).toThrow("broke off");
  expect(decodeTargetAnswer(answer(0, "text"), request)).toBe("text");
});
