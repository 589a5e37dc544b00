import { readdirSync, readFileSync } from "node:fs";

/** Memory of a family of processes. */
export type Memory = { readonly rssBytes: number; readonly pssBytes: number };

/** /proc counts CPU time in hundredths of a second on every Linux of this architecture (USER_HZ). */
const TICK_MS = 10;

const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // The process ended meanwhile.
    return "";
  }
};

const childrenOf = (pid: number): number[] => {
  let threads: string[] = [];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  const lists = threads.map((thread) => read(`/proc/${pid}/task/${thread}/children`));
  return lists.flatMap((list) =>
    list
      .split(" ")
      .filter((word) => word !== "")
      .map(Number),
  );
};

/** `roots` and all that descends of them, each once. */
export const familyOf = (roots: readonly number[]): number[] => {
  const family = new Set<number>();
  const add = (pid: number): void => {
    if (family.has(pid)) return;
    family.add(pid);
    for (const child of childrenOf(pid)) add(child);
  };
  for (const root of roots) add(root);
  return [...family];
};

const kibibytes = (text: string, name: string): number =>
  Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * 1024;

/**
 * CPU time of a process by its /proc/PID/stat, with that of children which have ended (what cutime and cstime count), so that the sum
 * over a family does not shrink when one of them ends.
 */
export const cpuMsOfStat = (text: string): number => {
  // Field 2, the command's name, may hold blanks and brackets; utime, stime, cutime and cstime are fields 14 to 17.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = fields.slice(11, 15).reduce((total, field) => total + Number(field), 0);
  return ticks * TICK_MS;
};

const cpuMsOf = (pid: number): number => {
  return cpuMsOfStat(read(`/proc/${pid}/stat`));
};

/** CPU time so far, summed over `roots` and their descendants. */
export const cpuMsOfFamily = (roots: readonly number[]): number =>
  familyOf(roots).reduce((total, pid) => total + cpuMsOf(pid), 0);

/** Memory now, summed over `roots` and their descendants. RSS counts shared pages once for each process, PSS once. */
export const memoryOfFamily = (roots: readonly number[]): Memory => {
  const memory = { rssBytes: 0, pssBytes: 0 };
  for (const pid of familyOf(roots)) {
    const rollup = read(`/proc/${pid}/smaps_rollup`);
    memory.rssBytes += kibibytes(rollup, "Rss");
    memory.pssBytes += kibibytes(rollup, "Pss");
  }
  return memory;
};
