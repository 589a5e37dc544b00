import { execFile, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { messageOf } from "../../common/errors.ts";

const run = promisify(execFile);

/** Each network is its own, so that all may have the same addresses. */
const SUBNET = "10.77.0";
const NODES_MAX = 100;
const TABLE = "inet ringstead";
/** What may wait in a slow link before packets are lost, as in the buffer of a cheap switch. */
const SLOW_BURST = "16kb";
const SLOW_QUEUE = "400ms";

/** Who is named in the set `silent` is not heard here. Packets are lost, connections are not reset: as when a cable is cut. */
const FILTER = `table ${TABLE} {
  set silent { type ipv4_addr; }
  chain heard { type filter hook input priority 0; policy accept; ip saddr @silent drop; }
}
`;

/** Why this machine has no networks of their own for nodes; undefined where it has. */
export const whyNoNodeNetwork = (): string | undefined => {
  if (process.getuid?.() !== 0) return "network namespaces need root";
  try {
    execFileSync("unshare", ["--net", "nft", "list", "tables"], { stdio: "pipe" });
    execFileSync("unshare", ["--net", "ip", "link", "add", "name", "probe", "type", "bridge"], { stdio: "pipe" });
    execFileSync(
      "unshare",
      ["--net", "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "1ms"],
      {
        stdio: "pipe",
      },
    );
    return undefined;
  } catch (thrown) {
    return messageOf(thrown);
  }
};

/**
 * A network namespace for each node, and one in which a bridge joins them:
 *
 *     node s1: eth0 10.77.0.1 ─ veth ─┐
 *     node s2: eth0 10.77.0.2 ─ veth ─┼─ bridge
 *     clients: eth0 10.77.0.3 ─ veth ─┘
 *
 * Nothing of it is seen in the machine's own network, so that two may be there at once. What is heard is filtered where it arrives: each
 * direction between two nodes can be cut by itself.
 */
export class NodeNetwork implements AsyncDisposable {
  readonly #nodes: readonly string[];
  readonly #prefix = `ringstead-${process.pid}-${randomBytes(3).toString("hex")}-`;
  readonly #slow = new Set<string>();

  private constructor(nodes: readonly string[]) {
    this.#nodes = nodes;
  }

  static async make(nodes: readonly string[]): Promise<NodeNetwork> {
    if (nodes.length > NODES_MAX) throw new Error(`a network has at most ${NODES_MAX} nodes`);
    const network = new NodeNetwork(nodes);
    try {
      await network.#build();
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const hub = this.#namespace("bridge");
    await run("ip", ["netns", "add", hub]);
    await run("ip", ["-n", hub, "link", "add", "bridge", "type", "bridge"]);
    await run("ip", ["-n", hub, "link", "set", "bridge", "up"]);
    for (const [index, node] of this.#nodes.entries()) {
      const own = this.#namespace(node);
      await run("ip", ["netns", "add", own]);
      await run("ip", ["-n", hub, "link", "add", `to${index}`, "type", "veth", "peer", "name", "eth0", "netns", own]);
      await run("ip", ["-n", hub, "link", "set", `to${index}`, "master", "bridge", "up"]);
      await run("ip", ["-n", own, "address", "add", `${this.addressOf(node)}/24`, "dev", "eth0"]);
      await run("ip", ["-n", own, "link", "set", "eth0", "up"]);
      await run("ip", ["-n", own, "link", "set", "lo", "up"]);
      await this.#inside(node, "nft", FILTER);
    }
  }

  #namespace(node: string): string {
    return `${this.#prefix}${node}`;
  }

  addressOf(node: string): string {
    const index = this.#nodes.indexOf(node);
    if (index < 0) throw new Error(`the network has no node ${node}`);
    return `${SUBNET}.${index + 1}`;
  }

  /** The words before a command that is to run on a node. The files are those of the machine. */
  on(node: string): readonly [command: string, ...words: string[]] {
    return ["nsenter", `--net=/run/netns/${this.#namespace(node)}`, "--"];
  }

  async #inside(node: string, command: "nft" | "tc", ...words: string[]): Promise<void> {
    const [enter, ...entering] = this.on(node);
    await run(enter, [...entering, command, ...words]);
  }

  /** From now on nothing that `from` sends reaches `to`. */
  async cut(from: string, to: string): Promise<void> {
    await this.#inside(to, "nft", "add", "element", ...TABLE.split(" "), "silent", `{ ${this.addressOf(from)} }`);
  }

  /** From now on `node` and these others, or all, do not hear each other. */
  async part(node: string, others: readonly string[] = this.#nodes.filter((other) => other !== node)): Promise<void> {
    for (const other of others) {
      await this.cut(node, other);
      await this.cut(other, node);
    }
  }

  /** From now on what `node` sends goes at so many kilobits a second. */
  async slow(node: string, kilobits: number): Promise<void> {
    const shape = ["tbf", "rate", `${kilobits}kbit`, "burst", SLOW_BURST, "latency", SLOW_QUEUE];
    await this.#inside(node, "tc", "qdisc", "replace", "dev", "eth0", "root", ...shape);
    this.#slow.add(node);
  }

  /** All is well again. */
  async mend(): Promise<void> {
    for (const node of this.#nodes) await this.#inside(node, "nft", "flush", "set", ...TABLE.split(" "), "silent");
    for (const node of this.#slow) await this.#inside(node, "tc", "qdisc", "delete", "dev", "eth0", "root");
    this.#slow.clear();
  }

  /** Requires: what ran on the nodes has ended; a namespace without a name lives as long as a process in it. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { stdout } = await run("ip", ["netns", "list"]);
    for (const line of stdout.split("\n")) {
      const name = line.split(" ")[0] ?? "";
      if (name.startsWith(this.#prefix)) await run("ip", ["netns", "delete", name]);
    }
  }
}
