import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openMark } from "./mark-file.ts";
import { decodeMark, encodeMark, MARK_BYTES, type MarkState, markStep, UnflushedMark } from "./unflushed-mark.ts";

const CLEAN: MarkState = { kind: "clean" };
const DIRTY: MarkState = { kind: "dirty", process: "12-34" };
const UNSAID: MarkState = { kind: "unsaid" };
const LOST: MarkState = { kind: "lost" };

test("only a front that finds another daemon than the last one's has something to say", () => {
  expect(markStep(DIRTY, { kind: "begun", process: "12-34" })).toEqual(DIRTY);
  expect(markStep(DIRTY, { kind: "begun", process: "56-78" })).toEqual(UNSAID);
  expect(markStep(CLEAN, { kind: "begun", process: "56-78" })).toEqual(CLEAN);
});

test("what is unsaid stays so until a flush failed for it, and what is lost stays lost", () => {
  for (const event of [
    { kind: "answered", process: "56-78" },
    { kind: "flushed" },
    { kind: "begun", process: "9-9" },
  ] as const)
    expect([markStep(UNSAID, event), markStep(LOST, event)]).toEqual([UNSAID, LOST]);
  expect(markStep(UNSAID, { kind: "told", process: undefined })).toEqual(CLEAN);
  expect(markStep(UNSAID, { kind: "told", process: "12-34" })).toEqual(DIRTY);
  expect(markStep(DIRTY, { kind: "given-up" })).toEqual(LOST);
});

test("a mark has one length, reads back what it says, and one that cannot be read may have said anything", () => {
  for (const state of [CLEAN, DIRTY, UNSAID, LOST])
    for (const isBusy of [true, false]) {
      const text = encodeMark(state, isBusy, "boot");
      expect(Buffer.byteLength(text)).toBe(MARK_BYTES);
      expect(decodeMark(text, "boot")).toEqual(state);
    }
  expect(decodeMark("", "boot")).toEqual(CLEAN);
  for (const text of ["2 boot clean idle\n", "1 boot clean\n", "1 boot clean idle more\n", "\0".repeat(128)])
    expect(decodeMark(text, "boot")).toEqual(UNSAID);
});

test("after a power cut what counts is whether anything was answered lately", () => {
  expect(decodeMark(encodeMark(DIRTY, true, "before"), "boot")).toEqual(UNSAID);
  expect(decodeMark(encodeMark(CLEAN, true, "before"), "boot")).toEqual(UNSAID);
  expect(decodeMark(encodeMark(CLEAN, false, "before"), "boot")).toEqual(CLEAN);
  expect(decodeMark(encodeMark(LOST, false, "before"), "boot")).toEqual(LOST);
});

test("before the first answer the mark is on the disk, and later ones do not wait for it again until it rested", async () => {
  const said: string[] = [];
  const file = {
    write: (text: string) => void said.push(text.trim().split(" ").slice(2).filter(Boolean).join(" ")),
    sync: async () => void said.push("sync"),
  };
  const mark = new UnflushedMark(file, "", "boot");
  await mark.answered("12-34");
  expect(said.splice(0)).toEqual(["12-34 busy", "sync"]);
  await mark.answered("12-34");
  mark.rested();
  expect(said.splice(0)).toEqual([]);
  mark.flushed();
  mark.flushed();
  await mark.answered("12-34");
  expect(said.splice(0)).toEqual(["clean busy", "12-34 busy"]);
  mark.flushed();
  mark.rested();
  await mark.answered("12-34");
  expect(said.splice(0)).toEqual(["clean busy", "clean idle", "12-34 busy", "sync"]);
});

test("the next front finds in the file what the one before it wrote, and none where there was none", async () => {
  const folder = mkdtempSync(join(tmpdir(), "rs-mark-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "unflushed");
  const said: string[] = [];
  const open = () => openMark(path, (message) => said.push(message));
  const first = open();
  expect(first.state).toEqual(CLEAN);
  expect(readFileSync(path).length).toBe(MARK_BYTES);
  await first.answered("12-34");
  expect(open().state).toEqual(DIRTY);
  await open().begun("56-78");
  expect(open().state).toEqual(UNSAID);
  await open().told(undefined);
  expect(open().state).toEqual(CLEAN);
  writeFileSync(path, "something else");
  expect(open().state).toEqual(UNSAID);
  expect(said).toEqual([]);
});
