/** Something that is not as it should be, for whoever has to do something about it. */
export type Finding = {
  /** A warning is well now, and should be known. */
  readonly severity: "problem" | "warning";
  /** What, where, since when and why. */
  readonly what: string;
  /** What it costs until it is put right, and what is being done by itself. */
  readonly consequence: string;
  readonly remedy: string;
};

export const problem = (what: string, consequence: string, remedy: string): Finding => ({
  severity: "problem",
  what,
  consequence,
  remedy,
});

export const warning = (what: string, consequence: string, remedy: string): Finding => ({
  severity: "warning",
  what,
  consequence,
  remedy,
});

/** As `status` says it. */
export const inOneLine = ({ what, remedy }: Finding): string => `${what}; ${remedy}`;
