import { expect, test } from "vitest";
import { answerIn, requestIn } from "./control.ts";

test("requests and answers are what they say, and nothing else is one", () => {
  expect(requestIn('{"do":"hold"}')).toEqual({ do: "hold" });
  const show = { do: "show", exportName: "iscsi-disk", isReadOnly: false, discards: true };
  expect(requestIn(JSON.stringify({ ...show, more: 1 }))).toEqual(show);
  for (const line of ['{"do":"show"}', '{"do":"end"}', "3", "null", "{"]) expect(() => requestIn(line)).toThrow();
  expect(answerIn('{"isShown":true,"sizeBytes":512}')).toEqual({ isShown: true, sizeBytes: 512 });
  const failed = { isShown: false, sizeBytes: 0, failure: "no" };
  expect(answerIn(JSON.stringify(failed))).toEqual(failed);
  for (const line of ['{"QMP":{}}', '{"isShown":true}', "[]"]) expect(() => answerIn(line)).toThrow();
});
