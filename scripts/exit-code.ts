import { codeOf } from "../common/errors.ts";

const EXIT_BY_CODE: Readonly<Record<string, number>> = { usage: 2, "invalid-config": 2, "already-running": 3 };

/** The exit code of an error that reached the command line: 2 for wrong usage, 3 for a second `up`, 1 otherwise. */
export const exitCodeOf = (thrown: unknown): number => EXIT_BY_CODE[codeOf(thrown) ?? ""] ?? 1;
