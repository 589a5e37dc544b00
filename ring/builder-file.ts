import type { Builder } from "./builder.ts";
import { decodeBuilder, encodeBuilder } from "./builder-format.ts";
import { readWholeFile, writeWholeFile } from "./whole-file.ts";

/** @throws RingsteadError `ring-file-missing`, `ring-file-unreadable`, `ring-file-foreign`, `ring-file-damaged`, `ring-file-too-new` */
export const loadBuilder = (path: string): Builder => readWholeFile(path, decodeBuilder);

/** Replaces the file at `path` atomically; returns once file and folder are synced. */
export const saveBuilder = (path: string, builder: Builder): void => writeWholeFile(path, encodeBuilder(builder));
