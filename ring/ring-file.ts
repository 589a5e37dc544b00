import { decodeRing, encodeRing } from "./format.ts";
import type { RingData } from "./device.ts";
import { readWholeFile, writeWholeFile } from "./whole-file.ts";
import { createRing, type Ring } from "./ring.ts";

/**
 * Reads and checks a ring file.
 * @throws RingsteadError `ring-file-missing`, `ring-file-unreadable`, `ring-file-foreign`, `ring-file-damaged`, `ring-file-too-new`
 */
export const loadRing = (path: string): Ring => createRing(readWholeFile(path, decodeRing));

/**
 * Writes a ring file in place of the one at `path`; who reads meanwhile sees the old or the new one, whole. Returns
 * once file and folder are synced.
 */
export const saveRing = (path: string, ring: RingData): void => writeWholeFile(path, encodeRing(ring));
