/**
 * Files of kernel modules in the order in which they can be loaded, those that `names` need first. `dependencies` is the text of `modules.dep`:
 * a line for each module, with those that it needs behind a colon, the first to be loaded last. Throws where it has no such module.
 */
export const modulesInOrder = (dependencies: string, names: readonly string[]): readonly string[] => {
  const lines = dependencies.split("\n").map((line) => line.split(":"));
  const order = new Set<string>();
  for (const name of names) {
    const line = lines.find(([file = ""]) => nameOf(file) === name);
    const [file, needed = ""] = line ?? [];
    if (file === undefined) throw new Error(`the kernel has no module ${name}`);
    for (const one of needed.split(" ").toReversed()) if (one !== "") order.add(one);
    order.add(file);
  }
  return [...order];
};

const nameOf = (file: string): string => /([^/]+)\.ko$/.exec(file)?.[1]?.replaceAll("_", "-") ?? "";
