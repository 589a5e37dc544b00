import { expect, test } from "vitest";
import { ReadMode } from "./read-mode.ts";

test("a slow read sends those behind it to the thread pool for a while that doubles, up to a second", () => {
  const mode = new ReadMode();
  expect(mode.isDirect(0)).toBe(true);
  let nowMs = 100;
  for (const pauseMs of [10, 20, 40, 80, 160, 320, 640, 1000, 1000]) {
    mode.took(5, nowMs);
    expect(mode.isDirect(nowMs + pauseMs - 1)).toBe(false);
    nowMs += pauseMs;
    expect(mode.isDirect(nowMs)).toBe(true);
  }
});

test("after many quick reads in a row slow ones are forgotten", () => {
  const mode = new ReadMode();
  for (let read = 0; read < 5; read++) mode.took(5, 0);
  for (let read = 0; read < 64; read++) mode.took(0.01, 1000);
  mode.took(5, 1000);
  expect(mode.isDirect(1009)).toBe(false);
  expect(mode.isDirect(1010)).toBe(true);
});
