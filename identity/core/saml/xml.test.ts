import { expect, test } from "vitest";
import { element } from "./xml.ts";

test("text and attributes stay text, and every line end, quote and letter beyond ASCII is a reference", () => {
  const text = `</a><b c="d">&amp;'\r\n\té😀]]>`;
  const written = "&lt;/a&gt;&lt;b c=&quot;d&quot;&gt;&amp;amp;&#x27;&#xD;&#xA;&#x9;&#xE9;&#x1F600;]]&gt;";
  expect(element("x", { y: text }, text)).toEqual({ xml: `<x y="${written}">${written}</x>` });
});

test("elements stand in one another as they are, and what is absent leaves nothing", () => {
  const inner = element("b", {});
  expect(element("a", {}, inner, undefined, "&", inner).xml).toBe("<a><b></b>&amp;<b></b></a>");
});

test("characters that XML has no way to write are refused, not dropped", () => {
  for (const character of ["\0", "\u0001", "\u000B", "\u001F", "\uD800", "\uDC00", "\uFFFE", "\uFFFF"]) {
    expect(() => element("a", {}, `x${character}`)).toThrow("has characters that XML cannot carry");
    expect(() => element("a", { b: character })).toThrow("has characters that XML cannot carry");
  }
});
