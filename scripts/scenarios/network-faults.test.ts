import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sleep } from "../../common/worker.ts";
import type { Explanation } from "../explain.ts";
import type { Status } from "../status.ts";
import { FaultyDisk, whyNoFaultyDisk } from "./faulty-disk.ts";
import { flipBits } from "./flip-bits.ts";
import { HistoryClients } from "./history-clients.ts";
import { failuresOf, type HttpOperation, problemsOf, summaryOf } from "./http-history.ts";
import { isEverything } from "./is-everything.ts";
import { NodeNetwork, whyNoNodeNetwork } from "./node-network.ts";
import { SmallDisk } from "./small-disk.ts";
import { TestCluster } from "./test-cluster.ts";

const MIB = 1024 * 1024;
const DISK_BYTES = 640 * MIB;
/** How long a fault lasts under load. */
const FAULT_MS = isEverything ? 10_000 : 3_000;
const BEFORE_MS = 500;
const CLIENTS = 12;
const NAMES = 6;
const WELL_LIMIT_MS = 120_000;
const CONTAINER = "kept";
/** Less than the 30 s beyond which a node is refused. */
const CLOCK_STEP_MS = 25_000;
const SLOW_KILOBITS = 2_000;
const FAILED_SHARE_MAX = 0.1;

/** Of whose objects the replicas are compared at the end: those where a node missed much. */
const EXPLAINED: readonly string[] = ["kill", "mute", "part", "gone", "clock"];
/** In the short run other scenarios have what is like these: a stopped node, a proxy that dies, a disk that fails. */
const long = it.runIf(isEverything);

const STORAGE = ["s1", "s2", "s3"] as const;
const DOORS = ["door", "gate"] as const;

const obstacle = whyNoNodeNetwork() ?? whyNoFaultyDisk();
if (obstacle !== undefined) process.stdout.write(`nodes in networks of their own are not tested: ${obstacle}\n`);

/** Repeats a run's clients where it is given. */
const firstSeed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 1_000_000));

/** Three storage nodes and two proxies, each in a network namespace, with clients in another one. */
describe.skipIf(obstacle !== undefined)(`nodes in networks of their own, seed ${firstSeed}`, () => {
  const held = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "ringstead-network-"));
  let network: NodeNetwork;
  let cluster: TestCluster;
  let clients: HistoryClients;
  let small: SmallDisk;
  let faulty: FaultyDisk;
  /** Of all tests: what one left behind must be there in the next. */
  const history: HttpOperation[] = [];
  const prefixes: string[] = [];

  const clockFile = (node: string): string => join(folder, `${node}.clock`);
  const setClock = (node: string, shiftMs: number): void => writeFileSync(clockFile(node), String(shiftMs));

  beforeAll(async () => {
    held.defer(() => rmSync(folder, { recursive: true, force: true }));
    network = held.use(await NodeNetwork.make([...STORAGE, ...DOORS, "clients"]));
    small = held.use(await SmallDisk.make(folder, "small", DISK_BYTES));
    faulty = held.use(await FaultyDisk.make(folder, "faulty", DISK_BYTES));
    const shim = pathToFileURL(join(import.meta.dirname, "shifted-clock.ts")).href;
    cluster = held.use(
      await TestCluster.make(
        {
          ...Object.fromEntries(STORAGE.map((node) => [node, "storage-node"])),
          door: "proxy,identity",
          gate: "proxy",
        },
        {
          network,
          device: { s2: small.folder, s3: faulty.folder },
          environment: (node) => ({ NODE_OPTIONS: `--import ${shim}`, CLOCK_SHIFT_FILE: clockFile(node) }),
        },
      ),
    );
    await cluster.makeRings();
  });

  afterAll(async () => {
    await held[Symbol.asyncDispose]();
  });

  const problems = async (node: string): Promise<readonly string[]> => {
    const { output } = await cluster.command(node, "status", "--json");
    return (JSON.parse(output) as Status).problems;
  };

  const expectWell = async (...nodes: readonly string[]): Promise<void> => {
    for (const node of nodes)
      await expect.poll(async () => [node, await problems(node)], { timeout: WELL_LIMIT_MS }).toEqual([node, []]);
  };

  /** What clients did while `fault` was there, and while it was mended; all of it is as promised, then and afterwards. */
  const underLoad = async (
    prefix: string,
    fault: () => Promise<void>,
    mend: () => Promise<void>,
  ): Promise<readonly HttpOperation[]> => {
    const names = Array.from({ length: NAMES }, (_, index) => `${prefix}-${index}`);
    prefixes.push(prefix);
    clients.work(CONTAINER, { seed: firstSeed + prefixes.length, clients: CLIENTS, names, prefix: `${prefix}-` });
    await sleep(BEFORE_MS);
    await fault();
    await sleep(FAULT_MS);
    await mend();
    await sleep(BEFORE_MS);
    const done = await clients.rest();
    history.push(...done, ...(await clients.look(CONTAINER, names, `${prefix}-`)));
    process.stdout.write(`${prefix}: ${summaryOf(done)}\n`);
    await expectNoProblem(history.filter(({ name }) => name.startsWith(`${prefix}-`)));
    return done;
  };

  /** What each replica has of the names is told where something is wrong: a listing that is right again tells nothing of the one that was not. */
  const expectNoProblem = async (told: readonly HttpOperation[]): Promise<void> => {
    const problems = problemsOf(told);
    for (const name of new Set(told.flatMap((one) => (one.kind === "list" ? [] : [one.name])))) {
      if (!problems.some((problem) => problem.includes(name))) continue;
      const { output } = await cluster.command("door", "explain", `/${clients.account}/${CONTAINER}/${name}`);
      const writes = told.filter((one) => one.name === name && !["read", "list"].includes(one.kind));
      process.stdout.write(`${output}\n${writes.map((write) => JSON.stringify(write)).join("\n")}\n`);
    }
    expect(problems).toEqual([]);
  };

  /** 503 is an answer to who lost to other writers for long; with a quorum there it is one for few. */
  const expectServed = (done: readonly HttpOperation[]): void => {
    expect(done.length).toBeGreaterThan(CLIENTS);
    expect(failuresOf(done).length / done.length).toBeLessThan(FAILED_SHARE_MAX);
  };

  /** `explain` says what differs, if anything does. */
  const expectEqualReplicas = async (name: string): Promise<void> => {
    const explain = async (): Promise<unknown> => {
      const { output } = await cluster.command("door", "explain", `/${clients.account}/${CONTAINER}/${name}`, "--json");
      const { isWell, verdict } = JSON.parse(output) as Explanation;
      return [name, isWell ? "" : verdict];
    };
    await expect.poll(explain, { timeout: WELL_LIMIT_MS }).toEqual([name, ""]);
  };

  it("nodes that reach each other through a bridge only make one object store", async () => {
    await cluster.startAll();
    const doors = DOORS.map((door) => `http://${network.addressOf(door)}:8080`);
    clients = held.use(new HistoryClients(network.on("clients"), doors));
    await clients.login(cluster.ready("door").swiftAuthV1);
    for (const door of DOORS.keys()) {
      const made = async (): Promise<number | undefined> =>
        (await clients.request(door, "PUT", `/${CONTAINER}`)).status;
      await expect.poll(made, { timeout: WELL_LIMIT_MS }).toBeOneOf([201, 202]);
    }
  });

  it("all is well", async () => {
    expectServed(
      await underLoad(
        "well",
        async () => {},
        async () => {},
      ),
    );
  });

  it("a storage node is killed and started under load", async () => {
    const done = await underLoad(
      "kill",
      async () => cluster.signal("s1", "SIGKILL"),
      () => cluster.start("s1"),
    );
    await expectWell("s1");
    expectServed(done);
  });

  long("a storage node is stopped and goes on", async () => {
    const done = await underLoad(
      "stop",
      async () => cluster.signal("s2", "SIGSTOP"),
      async () => cluster.signal("s2", "SIGCONT"),
    );
    await expectWell("s2");
    expectServed(done);
  });

  it("a proxy is stopped in the middle of writes, whose fate others decide, and goes on", async () => {
    const done = await underLoad(
      "stop-proxy",
      async () => cluster.signal("gate", "SIGSTOP"),
      async () => cluster.signal("gate", "SIGCONT"),
    );
    expectServed(done.filter(({ door }) => door === 0));
  });

  long("a proxy is killed in the middle of writes", async () => {
    const done = await underLoad(
      "kill-proxy",
      async () => cluster.signal("gate", "SIGKILL"),
      () => cluster.start("gate"),
    );
    expectServed(done.filter(({ door }) => door === 0));
  });

  long("a storage node is cut off from all", async () => {
    const done = await underLoad(
      "part",
      () => network.part("s3"),
      () => network.mend(),
    );
    expectServed(done);
  });

  it("a storage node hears the others, and they do not hear it", async () => {
    const others = [...STORAGE, ...DOORS].filter((node) => node !== "s1");
    const done = await underLoad(
      "mute",
      async () => {
        for (const other of others) await network.cut("s1", other);
      },
      () => network.mend(),
    );
    expectServed(done);
  });

  long("a storage node is heard by the others, and does not hear them", async () => {
    const others = [...STORAGE, ...DOORS].filter((node) => node !== "s2");
    const done = await underLoad(
      "deaf",
      async () => {
        for (const other of others) await network.cut(other, "s2");
      },
      () => network.mend(),
    );
    expectServed(done);
  });

  it("a proxy keeps one storage node only, and refuses what needs a quorum, while the other proxy serves", async () => {
    const done = await underLoad(
      "minority",
      () => network.part("gate", ["s1", "s2"]),
      () => network.mend(),
    );
    expectServed(done.filter(({ door }) => door === 0));
    expect(done.filter(({ door, status }) => door === 1 && status === 503)).not.toEqual([]);
  });

  long("two storage nodes cannot hear each other, and a slow link is between a third and all", async () => {
    const done = await underLoad(
      "slow",
      async () => {
        await network.part("s1", ["s2"]);
        await network.slow("s3", SLOW_KILOBITS);
      },
      () => network.mend(),
    );
    expectServed(done);
  });

  it("the file system of a storage node is full", async () => {
    const done = await underLoad(
      "full",
      async () => small.fillWithForeignFile(),
      async () => {
        small.removeForeignFile();
        // What `status` tells the operator to do where the index could not be written either.
        expect((await cluster.command("s2", "restart")).code).toBe(0);
      },
    );
    await expectWell("s2");
    expectServed(done);
  });

  long("the disk of a storage node goes under load, and is there again", async () => {
    const done = await underLoad(
      "gone",
      () => faulty.fail("read", "write", "flush"),
      async () => {
        expect((await cluster.down("s3")).code).toBe(0);
        await faulty.repair();
        await cluster.start("s3");
      },
    );
    await expectWell("s3");
    expectServed(done);
  });

  it("bits flip in the files of a storage node", async () => {
    let flipped = 0;
    const devices = join(cluster.dataOf("s1"), "devices", "d1");
    const done = await underLoad(
      "flip",
      async () => {
        const files = ["log", "large"].flatMap((name) =>
          readdirSync(join(devices, name)).map((file) => join(devices, name, file)),
        );
        flipped = flipBits(files, firstSeed);
      },
      async () => {},
    );
    expect(flipped).toBeGreaterThan(0);
    expectServed(done);
  });

  it("the clocks of a proxy and of two storage nodes step, in both directions", async () => {
    const done = await underLoad(
      "clock",
      async () => {
        setClock("gate", -CLOCK_STEP_MS / 2);
        setClock("s1", CLOCK_STEP_MS / 2);
        await sleep(FAULT_MS / 4);
        setClock("gate", CLOCK_STEP_MS / 2);
        setClock("s2", -CLOCK_STEP_MS / 2);
      },
      async () => {
        for (const node of ["gate", "s1", "s2"]) setClock(node, 0);
      },
    );
    expectServed(done);
  });

  it("what all of it left behind is one history, the same by both doors", async () => {
    await expectWell(...STORAGE, ...DOORS);
    for (const prefix of prefixes) {
      const names = Array.from({ length: NAMES }, (_, index) => `${prefix}-${index}`);
      history.push(...(await clients.look(CONTAINER, names, `${prefix}-`)));
    }
    await expectNoProblem(history);
    expect(history.length).toBeGreaterThan(prefixes.length * CLIENTS * 10);
    for (const prefix of prefixes.filter((one) => EXPLAINED.includes(one))) await expectEqualReplicas(`${prefix}-0`);
  });
});
