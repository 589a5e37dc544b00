import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { EMPTY, type LifeTable } from "./ring-life-figures.ts";
import type { Life, LifeChange, LifeDevice } from "./ring-life-script.ts";

/**
 * Swift's own classes, asked for what its command line does not print: a builder's table, and what Swift thinks of a table with the builder's
 * devices. Tables go as one JSON line and then the ids, replica after replica, as u16 in the machine's order.
 */
const HELPER = `
import array, json, sys
from swift.common.ring import RingBuilder
what, path = sys.argv[1:3]
builder = RingBuilder.load(path)
if what == "dump":
    rows = builder._replica2part2dev or []
    devices = [dict(id=d["id"], key=d["device"], zone=d["zone"], node=d["ip"], weight=d["weight"])
               for d in builder.devs if d is not None and d not in builder._remove_devs]
    head = dict(partitions=builder.parts, replicas=builder.replicas, devices=devices, lengths=[len(r) for r in rows])
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\\n" + b"".join(r.tobytes() for r in rows))
elif what == "judge":
    data = open(sys.argv[3], "rb").read()
    head, ids = data.split(b"\\n", 1)
    cells = array.array("H", ids)
    rows, at = [], 0
    for length in json.loads(head):
        rows.append(cells[at:at + length])
        at += length
    builder._replica2part2dev = rows
    for device in builder._iter_devs():
        device["parts"] = 0
    for id in cells:
        builder.devs[id]["parts"] += 1
    builder._build_dispersion_graph()
    print(json.dumps(dict(balance=builder.get_balance(), dispersion=builder.dispersion)))
`;

const PYTHON = "/usr/bin/python3";
const OUTPUT_LIMIT_BYTES = 1024 * 1024 * 1024;
const PORT = 6200;

type Dump = {
  readonly partitions: number;
  readonly replicas: number;
  readonly devices: readonly (LifeDevice & { readonly id: number })[];
  readonly lengths: readonly number[];
};

/** What Swift says of a table: its own measures of balance (per cent) and dispersion (per cent of replicas at risk). */
export type SwiftVerdict = { readonly balance: number; readonly dispersion: number };

/** The ring of Debian's Swift in files of `folder`. */
export class SwiftRing {
  readonly #folder: string;
  readonly #path: string;
  /** Keys by the order in which they first came. */
  readonly #keys: string[] = [];
  readonly rebalanceCommand: readonly [string, ...string[]];

  constructor(folder: string, life: Life) {
    this.#folder = folder;
    this.#path = join(folder, "swift.builder");
    this.#run("create", life.partitionPower, life.replicas, 1);
    this.rebalanceCommand = ["swift-ring-builder", this.#path, "rebalance", "--seed", "1"];
  }

  apply(change: LifeChange): void {
    switch (change.kind) {
      case "add":
        this.#run(
          "add",
          ...change.devices.flatMap((one) => [`r1z${one.zone}-${one.node}:${PORT}/${one.key}`, one.weight]),
        );
        return;
      case "remove":
        this.#run("remove", "--device", change.key, "--yes");
        return;
      case "weigh":
        this.#run("set_weight", "--device", change.key, change.weight, "--yes");
        return;
      case "replicas":
        throw new Error("is set by a command that is measured");
    }
  }

  /** The command that is measured; other changes are applied. */
  commandFor(change: LifeChange): readonly [string, ...string[]] | undefined {
    if (change.kind !== "replicas") return undefined;
    return ["swift-ring-builder", this.#path, "set_replicas", String(change.replicas)];
  }

  /** Lets `min_part_hours` be over. */
  passTime(): void {
    this.#run("pretend_min_part_hours_passed");
  }

  table(): LifeTable {
    const { head, cells: columns } = this.#dump();
    const width = head.lengths.length;
    const cells = new Uint16Array(head.partitions * width).fill(EMPTY);
    const devices: (LifeDevice | undefined)[] = [];
    const indexOfId: number[] = [];
    for (const { id, key, zone, node, weight } of head.devices) {
      indexOfId[id] = this.#indexOf(key);
      devices[this.#indexOf(key)] = { key, zone, node, weight };
    }
    let at = 0;
    for (const [column, length] of head.lengths.entries())
      for (let partition = 0; partition < length; partition += 1, at += 1)
        cells[partition * width + column] = indexOfId[columns[at] ?? EMPTY] ?? EMPTY;
    return {
      partitionCount: head.partitions,
      replicas: head.replicas,
      width,
      cells,
      devices: Array.from(this.#keys, (_, index) => devices[index]),
    };
  }

  /** Swift's opinion of a table of anybody with the devices that this ring has now. */
  judge({ cells, width, partitionCount, replicas, devices }: LifeTable): SwiftVerdict {
    const idOfKey = new Map(this.#dump().head.devices.map(({ key, id }) => [key, id]));
    const lengths = Array.from({ length: width }, (_, column) =>
      Math.round(partitionCount * Math.min(1, replicas - column)),
    );
    const columns = lengths.map((length, column) =>
      Uint16Array.from({ length }, (_, partition) => {
        const key = devices[cells[partition * width + column] ?? EMPTY]?.key ?? "";
        return idOfKey.get(key) ?? EMPTY;
      }),
    );
    const file = join(this.#folder, "judged");
    writeFileSync(file, Buffer.concat([Buffer.from(`${JSON.stringify(lengths)}\n`), ...columns.map(bytesOf)]));
    return JSON.parse(this.#help("judge", file).toString()) as SwiftVerdict;
  }

  #indexOf(key: string): number {
    const known = this.#keys.indexOf(key);
    return known < 0 ? this.#keys.push(key) - 1 : known;
  }

  #dump(): { head: Dump; cells: Uint16Array } {
    const bytes = this.#help("dump");
    const end = bytes.indexOf("\n");
    const head = JSON.parse(bytes.toString("utf8", 0, end)) as Dump;
    return { head, cells: new Uint16Array(Uint8Array.from(bytes.subarray(end + 1)).buffer) };
  }

  #help(...words: readonly [what: string, ...rest: string[]]): Buffer {
    const [what, ...rest] = words;
    return execFileSync(PYTHON, ["-c", HELPER, what, this.#path, ...rest], { maxBuffer: OUTPUT_LIMIT_BYTES });
  }

  #run(...words: readonly (string | number)[]): void {
    execFileSync("swift-ring-builder", [this.#path, ...words.map(String)], { stdio: "pipe" });
  }
}

const bytesOf = (cells: Uint16Array): Buffer => Buffer.from(cells.buffer, cells.byteOffset, cells.byteLength);
