import { readdirSync, readFileSync } from "node:fs";

/** CPU time and memory of a family of processes. */
export type Usage = { readonly cpuMs: number; readonly rssBytes: number; readonly pssBytes: number };

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

const cpuMsOf = (pid: number): number => {
  const text = read(`/proc/${pid}/stat`);
  // Field 2, the command's name, may hold blanks; utime and stime are fields 14 and 15.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) * TICK_MS;
};

/** CPU time so far and memory now, summed over `roots` and their descendants. RSS counts shared pages once for each process, PSS once. */
export const usageOf = (roots: readonly number[]): Usage => {
  const usage = { cpuMs: 0, rssBytes: 0, pssBytes: 0 };
  for (const pid of familyOf(roots)) {
    const memory = read(`/proc/${pid}/smaps_rollup`);
    usage.cpuMs += cpuMsOf(pid);
    usage.rssBytes += kibibytes(memory, "Rss");
    usage.pssBytes += kibibytes(memory, "Pss");
  }
  return usage;
};
