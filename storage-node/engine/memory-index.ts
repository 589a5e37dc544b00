import type { Index, IndexOperation, OpenIndex } from "./index-port.ts";

/** What of a memory index survives power loss: the state of the last checkpoint, and what was written since, in order. */
export type IndexPlatter = {
  entries: Map<string, Uint8Array>;
  checkpoint: Uint8Array | undefined;
  since: IndexOperation[];
};

/** A platter with nothing on it. */
export const emptyIndexPlatter = (): IndexPlatter => ({ entries: new Map(), checkpoint: undefined, since: [] });

const nameOf = (key: Uint8Array): string => Buffer.from(key).toString("latin1");

const copyOf = (operation: IndexOperation): IndexOperation =>
  operation.type === "put"
    ? { type: "put", key: operation.key.slice(), value: operation.value.slice() }
    : { type: "del", key: operation.key.slice() };

const perform = (entries: Map<string, Uint8Array>, operations: readonly IndexOperation[]): void => {
  for (const operation of operations) {
    if (operation.type === "put") entries.set(nameOf(operation.key), operation.value.slice());
    else entries.delete(nameOf(operation.key));
  }
};

/** The platter after power loss: the first `kept` of the operations since the checkpoint arrived, the others did not. */
export const platterAfterPowerLoss = (platter: IndexPlatter, kept: number): IndexPlatter => {
  const entries = new Map(platter.entries);
  perform(entries, platter.since.slice(0, kept));
  return { entries, checkpoint: platter.checkpoint, since: [] };
};

/** An index in memory, for simulations. */
export const openMemoryIndex =
  (platter: IndexPlatter): OpenIndex =>
  async (_path, fresh) => {
    if (fresh) Object.assign(platter, emptyIndexPlatter());
    const entries = new Map(platter.entries);
    perform(entries, platter.since);
    const index: Index = {
      get: (key) => entries.get(nameOf(key)),
      write: async (operations) => {
        const copies = operations.map(copyOf);
        perform(entries, copies);
        platter.since.push(...copies);
      },
      checkpoint: async (checkpoint) => {
        platter.entries = new Map(entries);
        platter.since = [];
        platter.checkpoint = checkpoint;
      },
      readCheckpoint: () => platter.checkpoint,
      cursor: ({ gte, lt, reverse }) => {
        const low = nameOf(gte);
        const high = nameOf(lt);
        const names = [...entries.keys()].filter((name) => name >= low && name < high).toSorted();
        if (reverse) names.reverse();
        const found = names.map((name): [Uint8Array, Uint8Array] => {
          const value = entries.get(name);
          return [Buffer.from(name, "latin1"), value ?? new Uint8Array(0)];
        });
        let at = 0;
        return {
          next: async (count) => found.slice(at, (at += count)),
          close: async () => {},
        };
      },
      close: async () => {},
    };
    return index;
  };
