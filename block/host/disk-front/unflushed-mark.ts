/**
 * What a front leaves behind, should it die, about writes that were answered and not flushed: they are in the memory of a daemon, and only as long
 * as that lives too are they not lost. Who comes next tells the client of the loss with a flush that fails.
 *
 *              answered, at daemon P               the next front, at P: flushes
 *     clean ─────────────────────────▶ dirty at P ───────────────────────────────▶ clean
 *       ▲ ▲────── all flushed ────────────┘ │ the next front, at another daemon: P died too
 *       └──────── one flush failed ─────────▼
 *                                        unsaid            any ──a write cannot be given again──▶ lost: every flush fails
 *
 * The text of it is FORMAT.md's. It is exact as long as the machine runs. After a power cut, which takes the memory of all, what counts is
 * `busy`: whether anything was answered within the last seconds; that is on the disk before the first answer, and taken back without hurry. Pure.
 */
export type MarkState =
  | { readonly kind: "clean" }
  | { readonly kind: "dirty"; readonly process: string }
  | { readonly kind: "unsaid" }
  | { readonly kind: "lost" };

export type MarkEvent =
  /** A front begins, which knows nothing of the one before it. */
  | { readonly kind: "begun"; readonly process: string }
  /** Something is answered and not flushed, all of it in the memory of that process or kept by the front. */
  | { readonly kind: "answered"; readonly process: string }
  | { readonly kind: "flushed" }
  /** A flush has failed for what was unsaid; `process` where something is not flushed by now. */
  | { readonly kind: "told"; readonly process: string | undefined }
  | { readonly kind: "given-up" };

const VERSION = "1";
/** Within a sector: written whole or not at all. */
export const MARK_BYTES = 128;

export const markStep = (state: MarkState, event: MarkEvent): MarkState => {
  if (state.kind === "lost") return state;
  switch (event.kind) {
    case "given-up":
      return { kind: "lost" };
    case "told":
      if (state.kind !== "unsaid") return state;
      return event.process === undefined ? { kind: "clean" } : { kind: "dirty", process: event.process };
    case "begun":
      return state.kind === "dirty" && state.process !== event.process ? { kind: "unsaid" } : state;
    case "answered":
      return state.kind === "unsaid" ? state : { kind: "dirty", process: event.process };
    case "flushed":
      return state.kind === "unsaid" ? state : { kind: "clean" };
  }
};

export const encodeMark = (state: MarkState, isBusy: boolean, bootId: string): string => {
  const word = state.kind === "dirty" ? state.process : state.kind;
  return `${[VERSION, bootId, word, isBusy ? "busy" : "idle"].join(" ").padEnd(MARK_BYTES - 1)}\n`;
};

/** What stands there, for a front that begins on a machine of that boot id. What cannot be read may have said anything. */
export const decodeMark = (text: string, bootId: string): MarkState => {
  if (text === "") return { kind: "clean" };
  const [version, boot, word, busy, ...more] = text.trim().split(/\s+/);
  const isSound = version === VERSION && ["busy", "idle"].includes(busy ?? "") && more.length === 0;
  if (!isSound || word === undefined || word === "unsaid") return { kind: "unsaid" };
  if (word === "lost") return { kind: "lost" };
  if (boot !== bootId) return busy === "busy" ? { kind: "unsaid" } : { kind: "clean" };
  return word === "clean" ? { kind: "clean" } : { kind: "dirty", process: word };
};

/** Where the mark is kept. */
export type MarkFile = {
  /** There before it returns for whoever reads it while the machine runs. */
  write(text: string): void;
  /** Resolves once what was written is on the disk. */
  sync(): Promise<void>;
};

/** The mark of one front, written before whoever waits for an answer has it. */
export class UnflushedMark {
  readonly #file: MarkFile;
  readonly #bootId: string;
  #state: MarkState;
  #isBusy: boolean;
  #syncing: Promise<void> = Promise.resolve();

  constructor(file: MarkFile, text: string, bootId: string) {
    this.#file = file;
    this.#bootId = bootId;
    this.#state = decodeMark(text, bootId);
    this.#isBusy = this.#state.kind !== "clean";
  }

  get state(): MarkState {
    return this.#state;
  }

  begun(process: string): Promise<void> {
    return this.#stepSynced({ kind: "begun", process });
  }

  /** Requires: nobody has the answer before this resolves. */
  async answered(process: string): Promise<void> {
    const state = this.#state;
    const isNew = state.kind === "clean" || (state.kind === "dirty" && state.process !== process);
    const wasBusy = this.#isBusy;
    this.#isBusy = true;
    if (isNew) this.#step({ kind: "answered", process });
    if (!wasBusy) this.#syncing = this.#file.sync();
    await this.#syncing;
  }

  /** Nothing is answered that is not flushed. */
  flushed(): void {
    if (this.#state.kind === "dirty") this.#step({ kind: "flushed" });
  }

  /** As `flushed`, and for a while nothing was written: a power cut from now on loses nothing. */
  rested(): void {
    if (!this.#isBusy || this.#state.kind !== "clean") return;
    this.#isBusy = false;
    this.#write();
  }

  /** A flush fails for what was unsaid; `process` has what is not flushed by now, undefined where there is nothing. */
  told(process: string | undefined): Promise<void> {
    return this.#stepSynced({ kind: "told", process });
  }

  givenUp(): Promise<void> {
    return this.#stepSynced({ kind: "given-up" });
  }

  #step(event: MarkEvent): void {
    this.#state = markStep(this.#state, event);
    this.#write();
  }

  async #stepSynced(event: MarkEvent): Promise<void> {
    const before = this.#state;
    this.#step(event);
    if (this.#state.kind !== before.kind) await this.#file.sync();
  }

  #write(): void {
    this.#file.write(encodeMark(this.#state, this.#isBusy, this.#bootId));
  }
}
