import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { sleep } from "../../common/worker.ts";
import { ringCommand } from "../../ring/command.ts";
import type { RingData } from "../../ring/device.ts";
import { loadRing, saveRing } from "../../ring/ring-file.ts";
import type { ReadyFile } from "../ready-file.ts";
import { RING_NAMES } from "../rings.ts";
import { CHECKOUT } from "../up-options.ts";
import { freePortOffset, freePorts } from "../../common/free-ports.ts";
import type { NodeNetwork } from "./node-network.ts";
import { ObjectClient } from "./object-client.ts";
import { type CommandRun, runCommand } from "./run-command.ts";

const PARTITION_POWER = "6";
const READY_LIMIT_MS = 60_000;
const POLL_MS = 50;

const ring = async (...words: string[]): Promise<void> => {
  const fail = (text: string): never => {
    throw new Error(text);
  };
  if ((await ringCommand(words, { out: () => {}, error: fail })) !== 0) fail(`ringstead ring ${words.join(" ")}`);
};

/** Where and how the nodes of a cluster run, where that is not one network, the checkout, and a folder for each device. */
export type ClusterPlaces = {
  /** Each node has an address of its own in it. */
  readonly network?: NodeNetwork;
  /** The folder that is a node's one device. */
  readonly device?: Readonly<Record<string, string>>;
  /** What a node's processes find in their environment beside what is in this one. */
  readonly environment?: (node: string) => Readonly<Record<string, string>>;
};

/** Several nodes on this machine, each run by `ringstead serve` in a folder of its own, that talk over TCP. */
export class TestCluster implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ringstead-cluster-"));
  readonly nodes: readonly string[];
  readonly #roles: Readonly<Record<string, string>>;
  readonly #places: ClusterPlaces;
  /** Whose code a node runs. */
  readonly #checkouts = new Map<string, string>();
  readonly #running = new Map<string, ChildProcess>();
  readonly #stopped = new Set<number>();

  private constructor(roles: Readonly<Record<string, string>>, places: ClusterPlaces) {
    this.#roles = roles;
    this.#places = places;
    this.nodes = Object.keys(roles);
  }

  /** `roles` of each node, joined by commas; one has identity. Writes cluster.toml and the cluster key, and starts nothing. */
  static async make(roles: Readonly<Record<string, string>>, places: ClusterPlaces = {}): Promise<TestCluster> {
    const cluster = new TestCluster(roles, places);
    const { network } = places;
    const tables = network === undefined ? await cluster.#localTables() : cluster.#networkTables(network);
    const identityNode = cluster.#nodeOf("identity");
    const head = `partition_power = ${PARTITION_POWER}\nidentity_node = "${identityNode}"\n`;
    writeFileSync(cluster.configFile, `${head}${tables.join("\n")}\n`);
    writeFileSync(cluster.keyFile, `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
    return cluster;
  }

  /** All nodes at one address, on ports that are free. */
  async #localTables(): Promise<string[]> {
    const { nodes } = this;
    const offsets = [await freePortOffset()];
    const proxies = nodes.filter((node) => this.#has(node, "proxy"));
    // The catalog names one address for objects: that of the first.
    while (offsets.length < proxies.length) offsets.push(await freePortOffset());
    const ports = await freePorts(3 * nodes.length);
    return nodes.map((node, index) =>
      [
        `[node.${node}]`,
        'address = "127.0.0.1"',
        // Identity listens one port above its rpc_port.
        `rpc_port = ${ports + 3 * index}`,
        `metrics_bind = "127.0.0.1:${ports + 3 * index + 2}"`,
        `port_offset = ${offsets[Math.max(0, proxies.indexOf(node))]}`,
        this.#deviceLine(node),
      ].join("\n"),
    );
  }

  /** Each node at its own address, on the ports that it has by default. */
  #networkTables(network: NodeNetwork): string[] {
    return this.nodes.map((node) => {
      const address = network.addressOf(node);
      return [`[node.${node}]`, `address = "${address}"`, `bind = "${address}"`, this.#deviceLine(node)].join("\n");
    });
  }

  #deviceLine(node: string): string {
    const folder = this.#places.device?.[node];
    return folder === undefined ? "devices = 1" : `device = ["${folder}"]`;
  }

  /** Three storage nodes and a door with proxy and identity, with rings; nothing runs yet. */
  static async ofThreeAndDoor(): Promise<TestCluster> {
    const cluster = await TestCluster.make({
      s1: "storage-node",
      s2: "storage-node",
      s3: "storage-node",
      door: "proxy,identity",
    });
    await cluster.makeRings();
    return cluster;
  }

  #has(node: string, role: string): boolean {
    return this.#roles[node]?.split(",").includes(role) === true;
  }

  #nodeOf(role: string): string {
    const found = this.nodes.find((node) => this.#has(node, role));
    if (found === undefined) throw new Error(`no node has the role ${role}`);
    return found;
  }

  get configFile(): string {
    return join(this.folder, "cluster.toml");
  }

  get keyFile(): string {
    return join(this.folder, "cluster.key");
  }

  dataOf(node: string): string {
    return join(this.folder, node);
  }

  /** Three replicas over one device of each storage node, or of those given, the same rings in every node's folder. */
  async makeRings(storageNodes = this.nodes.filter((node) => this.#has(node, "storage-node"))): Promise<void> {
    for (const name of RING_NAMES) {
      const builder = join(this.folder, `${name}.builder`);
      await ring("create", builder, "--partition-power", PARTITION_POWER, "--replicas", "3", "--hash-seed", "5eed");
      for (const node of storageNodes) await ring("add", builder, "--node", node, "--device", "d1", "--weight", "100");
    }
    await this.handOutRings();
  }

  /** What an operator does with each ring's builder before the rings are handed out again, as `ringstead ring` takes it: the subcommand, then what follows BUILDER. */
  async changeRings(...changes: readonly (readonly [string, ...string[]])[]): Promise<void> {
    for (const name of RING_NAMES)
      for (const [command, ...words] of changes) await ring(command, join(this.folder, `${name}.builder`), ...words);
    await this.handOutRings();
  }

  /** Rebalances, and puts the rings into every node's folder. */
  async handOutRings(): Promise<void> {
    for (const name of RING_NAMES) {
      await ring("rebalance", join(this.folder, `${name}.builder`), "--force");
      for (const node of this.nodes) {
        const file = join(this.dataOf(node), "rings", `${name}.ring`);
        mkdirSync(dirname(file), { recursive: true });
        copyFileSync(this.ringFile(name), `${file}.new`);
        renameSync(`${file}.new`, file);
      }
    }
  }

  /** Puts one ring, changed, into every node's folder. */
  handOutRing(name: string, change: (ring: RingData) => RingData): void {
    const ring = change(loadRing(this.ringFile(name)));
    for (const node of this.nodes) saveRing(join(this.dataOf(node), "rings", `${name}.ring`), ring);
  }

  ringFile(name: string): string {
    return join(this.folder, `${name}.ring`);
  }

  /** The words of `ringstead serve` for a node, or for a proxy of a name that cluster.toml lacks; without a key. */
  serveWords(node: string): string[] {
    return [
      "serve",
      this.#roles[node] ?? "proxy",
      "--node",
      node,
      "--config",
      this.configFile,
      "--data",
      this.dataOf(node),
    ];
  }

  /** Runs a node, and waits until it is ready. */
  async start(node: string): Promise<void> {
    // That of a killed node says nothing of the new one.
    rmSync(join(this.dataOf(node), "ready.json"), { force: true });
    const { network, environment } = this.#places;
    const serve = [...this.#ringsteadOf(node), ...this.serveWords(node), "--key-file", this.keyFile];
    const [command = "", ...words] = network === undefined ? serve : [...network.on(node), ...serve];
    const env = { ...process.env, ...environment?.(node) };
    const child = spawn(command, words, { stdio: ["ignore", "ignore", "pipe"], env });
    let said = "";
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
    this.#running.set(node, child);
    const limitMs = performance.now() + READY_LIMIT_MS;
    while (!existsSync(join(this.dataOf(node), "ready.json"))) {
      if (child.exitCode !== null) throw new Error(`${node} ended: ${said}`);
      if (performance.now() > limitMs) throw new Error(`${node} is not ready: ${said}`);
      await sleep(POLL_MS);
    }
  }

  async startAll(): Promise<void> {
    await Promise.all(this.nodes.map((node) => this.start(node)));
  }

  /** Starts all nodes, logs in, and makes a container. */
  async open(container: string): Promise<ObjectClient> {
    await this.startAll();
    const client = await this.login();
    const limitMs = performance.now() + READY_LIMIT_MS;
    // The proxy learns the keys of the identity process within a second of both being there.
    while ((await client.request("PUT", `/${container}`)).status >= 300) {
      if (performance.now() > limitMs) throw new Error("the object store does not serve");
      await sleep(POLL_MS);
    }
    return client;
  }

  ready(node: string): ReadyFile {
    return JSON.parse(readFileSync(join(this.dataOf(node), "ready.json"), "utf8")) as ReadyFile;
  }

  /** A signal to all processes of a node, its supervisor first, so that nothing is started again. */
  signal(node: string, name: "SIGSTOP" | "SIGCONT" | "SIGKILL"): void {
    const { processes } = this.ready(node);
    for (const { pid } of processes.toSorted(
      (a, b) => Number(b.role === "supervisor") - Number(a.role === "supervisor"),
    )) {
      process.kill(pid, name);
      if (name === "SIGSTOP") this.#stopped.add(pid);
      else this.#stopped.delete(pid);
    }
  }

  /** From its next start on a node runs the code of this checkout, and so do the commands that it is told. */
  useCheckout(node: string, checkout: string): void {
    this.#checkouts.set(node, checkout);
  }

  /** Another checkout's own command would look after its packages first, which are those of this one. */
  #ringsteadOf(node: string): readonly string[] {
    const checkout = this.#checkouts.get(node);
    if (checkout === undefined) return [join(CHECKOUT, "scripts/ringstead")];
    return [process.execPath, "--disable-warning=ExperimentalWarning", join(checkout, "scripts/ringstead.ts")];
  }

  /** `ringstead COMMAND` on a node. */
  command(node: string, ...words: readonly string[]): Promise<CommandRun> {
    const told = [...this.#ringsteadOf(node), ...words, "--data", this.dataOf(node)];
    const [command = "", ...rest] =
      this.#places.network === undefined ? told : [...this.#places.network.on(node), ...told];
    return runCommand(command, rest);
  }

  down(node: string): Promise<CommandRun> {
    return this.command(node, "down");
  }

  /** Logs in as admin at the proxy of `node`, the first one where it is not given. */
  login(node = this.#nodeOf("proxy")): Promise<ObjectClient> {
    const { url, user } = this.ready(node).swiftAuthV1;
    return ObjectClient.login({ url, user, key: this.ready(this.#nodeOf("identity")).admin.password });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.#stopped) process.kill(pid, "SIGCONT");
    for (const child of this.#running.values()) child.kill("SIGTERM");
    for (const node of this.nodes) await this.down(node);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
