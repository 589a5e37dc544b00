import { endOfRow, replicasIn, type TableShape } from "./table-shape.ts";
import type { Targets } from "./targets.ts";
import { TIER_LEVELS } from "./tier-tree.ts";

/**
 * The fewest moves that lead from `assignments` to the targets with every partition in bounds: a minimum-cost flow from each
 * partition through its regions, zones and nodes to the devices. An oracle for tests, exact and slow; it shares nothing
 * with the rebalance that it judges. Holes count as moves.
 */
export const fewestMoves = (assignments: Uint16Array, shape: TableShape, targets: Targets): number => {
  const { partitionCount, replicaCount } = shape;
  const network = new Network();
  const sink = network.node();
  const devices = Array.from(targets.ofDevice, (target) => {
    const node = network.node();
    network.edge(node, sink, target, 0);
    return node;
  });
  let floors = 0;
  for (let partition = 0; partition < partitionCount; partition += 1) {
    const root = network.node();
    network.edge(SOURCE, root, replicasIn(shape, partition), 0);
    const holders = assignments.subarray(partition * shape.width, endOfRow(shape, partition));
    const tiers = new Map<string, number>();
    for (const [device, target] of targets.ofDevice.entries()) {
      if (target === 0) continue;
      let parent = root;
      for (let level = 0; level < TIER_LEVELS; level += 1) {
        const tier = targets.tierOf[level]?.[device] ?? 0;
        const key = `${level}/${tier}`;
        let node = tiers.get(key);
        if (node === undefined) {
          node = network.node();
          tiers.set(key, node);
          const { floor, ceiling } = targets.bounds[level]?.[tier] ?? { floor: 0, ceiling: 0 };
          // A floor is a part of the edge that pays so much that a cheapest flow always fills it.
          network.edge(parent, node, floor, -FLOOR_REWARD);
          network.edge(parent, node, ceiling - floor, 0);
          floors += floor;
        }
        parent = node;
      }
      network.edge(parent, devices[device] ?? sink, 1, holders.includes(device) ? 0 : 1);
    }
  }
  const { flow, cost } = network.cheapestFlow(sink);
  const moves = cost + floors * FLOOR_REWARD;
  if (flow !== replicaCount || moves >= FLOOR_REWARD) throw new Error("targets and bounds exclude each other");
  return moves;
};

const SOURCE = 0;
const FLOOR_REWARD = 100_000;

type Edge = { readonly to: number; capacity: number; readonly cost: number; readonly reverse: number };

/** Successive shortest paths (Bellman and Ford with a queue). */
class Network {
  readonly #edges: Edge[][] = [[]];

  node(): number {
    return this.#edges.push([]) - 1;
  }

  edge(from: number, to: number, capacity: number, cost: number): void {
    if (capacity === 0) return;
    const [there, back] = [this.#edges[from] ?? [], this.#edges[to] ?? []];
    there.push({ to, capacity, cost, reverse: back.length });
    back.push({ to: from, capacity: 0, cost: -cost, reverse: there.length - 1 });
  }

  cheapestFlow(sink: number): { flow: number; cost: number } {
    let flow = 0;
    let cost = 0;
    for (let path = this.#shortestPath(sink); path !== undefined; path = this.#shortestPath(sink)) {
      for (const edge of path) {
        edge.capacity -= 1;
        cost += edge.cost;
        const back = this.#edges[edge.to]?.[edge.reverse];
        if (back !== undefined) back.capacity += 1;
      }
      flow += 1;
    }
    return { flow, cost };
  }

  #shortestPath(sink: number): Edge[] | undefined {
    const distance = new Float64Array(this.#edges.length).fill(Infinity);
    const arrivedBy: (readonly [from: number, edge: Edge] | undefined)[] = [];
    const queued = new Set([SOURCE]);
    distance[SOURCE] = 0;
    for (const from of queued) {
      queued.delete(from);
      for (const edge of this.#edges[from] ?? []) {
        const length = (distance[from] ?? Infinity) + edge.cost;
        if (edge.capacity === 0 || length >= (distance[edge.to] ?? Infinity)) continue;
        distance[edge.to] = length;
        arrivedBy[edge.to] = [from, edge];
        queued.add(edge.to);
      }
    }
    if (distance[sink] === Infinity) return undefined;
    const path: Edge[] = [];
    for (let step = arrivedBy[sink]; step !== undefined; step = arrivedBy[step[0]]) path.push(step[1]);
    return path;
  }
}
