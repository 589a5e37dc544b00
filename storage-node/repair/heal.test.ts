import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { type Ballot, ballotOf, NO_INCARNATION } from "../../common/ballot.ts";
import { timestampAt } from "../../common/hybrid-clock.ts";
import { DeviceReplica } from "../device-replica.ts";
import type { DeviceEngine, NewBody } from "../engine/device-engine.ts";
import { overwrite } from "../engine/engine-fixture.ts";
import { emptyIndexPlatter, type IndexPlatter, openMemoryIndex } from "../engine/memory-index.ts";
import { openDevice } from "../engine/open-device.ts";
import { entryDigests } from "../store/entry-digest.ts";
import { registerKey } from "../store/keys.ts";
import type { Name, Proposal } from "../wire.ts";
import { HealJournal } from "./heal-journal.ts";
import { Healer } from "./heal.ts";
import { LocalSource } from "./local-source.ts";

const OBJECT: Name = { space: "object", hash32: 0x12345678, path: "/a/c/o" };
const DEVICES = ["d1", "d2", "d3"];
const digests = entryDigests(Buffer.alloc(32, 7));
const silent = { info: () => {}, warn: () => {}, error: () => {}, child: () => silent };
const never = new AbortController().signal;

type Device = { readonly path: string; readonly engine: DeviceEngine; readonly replica: DeviceReplica };

/** Three replicas of one partition on real disks, and a healer of the first. */
class HealFixture implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ringstead-heal-"));
  readonly devices = new Map<string, Device>();
  readonly #platters = new Map<string, IndexPlatter>();
  nowMs = 1_800_000_000_000;
  healer!: Healer;
  journal!: HealJournal;

  async open(): Promise<this> {
    for (const device of DEVICES) await this.openOne(device);
    this.makeHealer();
    return this;
  }

  /** Anew where it is open, after `meanwhile`. */
  async openOne(device: string, meanwhile = (_index: IndexPlatter): void => {}): Promise<void> {
    await this.devices.get(device)?.engine[Symbol.asyncDispose]();
    const platter = this.#platters.get(device) ?? emptyIndexPlatter();
    this.#platters.set(device, platter);
    meanwhile(platter);
    const path = join(this.folder, device);
    const identity = { clusterId: "cluster", node: "n", device };
    const openIndex = openMemoryIndex(platter);
    const parts = { segmentBytes: 1024 * 1024, checkpointBytes: 1024 * 1024, reservedBytes: 0, openIndex };
    const engine = await openDevice({ path, identity, digests }, parts);
    const replica = new DeviceReplica(engine, { nowMs: () => this.nowMs }, [1n, 2n]);
    this.devices.set(device, { path, engine, replica });
  }

  makeHealer(): void {
    const device = "d1";
    const { replica, path } = this.of(device);
    this.journal = new HealJournal(path);
    const members = DEVICES.map((name, id) => ({ id, region: 1, zone: 1, node: "n", device: name, weight: 1 }));
    const ring = { partitionOfHash32: () => 0, partitionPower: 1, primaries: () => members };
    this.healer = new Healer({
      node: "n",
      device,
      replica,
      rings: { object: ring, container: ring, account: ring },
      peerOf: ({ device: name }) => new LocalSource(this.of(name).replica),
      allow: async () => {},
      journal: this.journal,
      clock: { nowMs: () => this.nowMs },
      log: silent,
    });
  }

  of(device: string): Device {
    const found = this.devices.get(device);
    if (found === undefined) throw new Error(`no device ${device}`);
    return found;
  }

  /** On all replicas, or on some. */
  async put(time: number, body: Uint8Array, metadata: string, devices = DEVICES): Promise<Ballot> {
    const version = ballotOf(NO_INCARNATION, timestampAt(this.nowMs - 10_000 + time), "00000001");
    for (const device of devices) {
      const { replica, engine } = this.of(device);
      let newBody: NewBody = { kind: "bytes", bytes: body };
      if (body.length > 1024 * 1024) {
        const staged = await engine.stage();
        await staged.write(body);
        newBody = { kind: "staged", file: staged.file, length: await staged.seal() };
      }
      const proposal: Proposal = {
        bodyVersion: version,
        isTombstone: false,
        bodyLength: body.length,
        metadata: Buffer.from(metadata),
        body: newBody.kind === "bytes" ? "inline" : "staged",
      };
      const reply = await replica.accept(OBJECT, version, version, proposal, newBody, [version]);
      expect(reply.kind).toBe("accepted");
      replica.confirm(OBJECT, version, false);
    }
    return version;
  }

  async body(device: string): Promise<Buffer> {
    const { replica, engine } = this.of(device);
    const stored = await replica.held(OBJECT);
    if (stored === undefined || stored.body.kind === "none") throw new Error("no body");
    return Buffer.from(await engine.readBody(stored.body, 0, stored.body.length));
  }

  /** Flips a bit of every place in the device's log where the text stands. */
  damageLog(device: string, text: string): void {
    const folder = join(this.of(device).path, "log");
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      const bytes = readFileSync(path);
      for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1))
        overwrite(path, at, Buffer.of((bytes[at] ?? 0) ^ 1));
    }
  }

  damageFile(device: string, offset: number): void {
    const folder = join(this.of(device).path, "large");
    for (const name of readdirSync(folder)) {
      const path = join(folder, name);
      if (statSync(path).size > offset) overwrite(path, offset, Buffer.from("damaged"));
    }
  }

  found(isSuspect = false): void {
    this.healer.found(registerKey(OBJECT), "found by a test", isSuspect);
  }

  async heal(): Promise<void> {
    while ((await this.healer.work(never)) === "busy");
  }

  async events(): Promise<string[]> {
    return (await this.journal.of(OBJECT.path, 20)).map(({ event, detail }) => `${event} ${detail}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { engine } of this.devices.values()) await engine[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true });
  }
}

test("a damaged body in the log is brought from another replica, the register as it was, and the next read is whole", async () => {
  await using fixture = await new HealFixture().open();
  const body = Buffer.from("small body ".repeat(400));
  const version = await fixture.put(1, body, "metadata");
  fixture.damageLog("d1", "small body");
  await expect(fixture.body("d1")).rejects.toMatchObject({ code: "body-damaged" });
  const before = (await fixture.of("d1").replica.held(OBJECT))?.register;
  fixture.found();
  await fixture.heal();
  expect((await fixture.body("d1")).equals(body)).toBe(true);
  const after = (await fixture.of("d1").replica.held(OBJECT))?.register;
  expect(after).toEqual(before);
  expect(after).toMatchObject({ version, state: "confirmed" });
  expect(fixture.healer.figures).toMatchObject({
    waitingEntries: 0,
    damagedEntries: 1,
    healedEntries: 1,
    healedBytes: body.length,
    unhealedEntries: 0,
  });
  expect(await fixture.events()).toEqual(["damaged found by a test", "healed from n/d2"]);
  expect(readdirSync(join(fixture.of("d1").path, "quarantine"))).toHaveLength(1);
});

test("a damaged large body is staged anew from another replica, and its old file goes", async () => {
  await using fixture = await new HealFixture().open();
  const body = randomBytes(3_000_000);
  await fixture.put(1, body, "metadata");
  fixture.damageFile("d1", 1_500_000);
  const folder = join(fixture.of("d1").path, "large");
  const [old = ""] = readdirSync(folder);
  fixture.found();
  await fixture.heal();
  expect((await fixture.body("d1")).equals(body)).toBe(true);
  await expect.poll(() => existsSync(join(folder, old))).toBe(false);
  await fixture.openOne("d1");
  expect((await fixture.body("d1")).equals(body)).toBe(true);
});

test("what no replica can give is said once, kept, and tried again until one can", async () => {
  await using fixture = await new HealFixture().open();
  const body = Buffer.from("small body ".repeat(400));
  await fixture.put(1, body, "metadata");
  for (const device of DEVICES) fixture.damageLog(device, "small body");
  fixture.found();
  await fixture.heal();
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 1, unhealedEntries: 1, healedEntries: 0 });
  for (let attempt = 0; attempt < 3; attempt++) {
    fixture.nowMs += 60_000;
    await fixture.heal();
  }
  const events = await fixture.events();
  expect(events.map((event) => event.split(" ")[0])).toEqual(["damaged", "not-healed"]);
  expect(events[1]).toContain("n/d2: body-damaged");
  // Somebody puts it right there.
  const key = registerKey(OBJECT);
  const entry = fixture.of("d3").engine.get(key);
  if (entry !== undefined)
    await fixture
      .of("d3")
      .engine.apply([{ kind: "put", key, value: entry.value, body: { kind: "bytes", bytes: body } }]);
  fixture.nowMs += 3_600_000;
  await fixture.heal();
  expect((await fixture.body("d1")).equals(body)).toBe(true);
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 0, unhealedEntries: 0, healedEntries: 1 });
});

test("a body of another version is never taken for the damaged one", async () => {
  await using fixture = await new HealFixture().open();
  await fixture.put(1, Buffer.from("older body ".repeat(100)), "metadata", ["d2", "d3"]);
  await fixture.put(2, Buffer.from("newer body ".repeat(100)), "metadata", ["d1"]);
  fixture.damageLog("d1", "newer body");
  fixture.found();
  await fixture.heal();
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 1, unhealedEntries: 1 });
  await expect(fixture.body("d1")).rejects.toMatchObject({ code: "body-damaged" });
});

test("an entry that was written anew meanwhile keeps what was written", async () => {
  await using fixture = await new HealFixture().open();
  await fixture.put(1, Buffer.from("small body ".repeat(400)), "metadata");
  fixture.damageLog("d1", "small body");
  fixture.found();
  const healing = fixture.heal();
  const later = Buffer.from("later body");
  await fixture.put(2, later, "metadata");
  await healing;
  await fixture.heal();
  expect((await fixture.body("d1")).equals(later)).toBe(true);
  expect(fixture.healer.figures.waitingEntries).toBe(0);
});

test("a register whose value is lost comes back from a replica that has the same version, at once and with its body", async () => {
  await using fixture = await new HealFixture().open();
  const body = Buffer.from("body that stays whole ".repeat(40));
  const metadata = "long metadata ".repeat(40);
  const version = await fixture.put(1, body, metadata);
  await fixture.openOne("d1");
  fixture.makeHealer();
  fixture.damageLog("d1", "long metadata");
  await expect(fixture.of("d1").replica.held(OBJECT)).rejects.toMatchObject({ code: "entry-damaged" });
  // The read has told the healer.
  await fixture.heal();
  const stored = await fixture.of("d1").replica.held(OBJECT);
  expect(stored?.register).toMatchObject({ version, ballot: version });
  expect(Buffer.from(stored?.register.metadata ?? []).toString()).toBe(metadata);
  expect((await fixture.body("d1")).equals(body)).toBe(true);
  expect(fixture.of("d1").engine.digests.isCertain).toBe(true);
});

test("a lost register of which the others have another version is taken from them only when nothing that was promised can bind, and what was promised before is refused", async () => {
  await using fixture = await new HealFixture().open();
  const older = await fixture.put(1, Buffer.from("older"), "m", ["d2"]);
  const newer = await fixture.put(2, Buffer.from("newer"), "m", ["d3"]);
  const lost = await fixture.put(3, Buffer.from("lost"), "long metadata ".repeat(40), ["d1"]);
  await fixture.openOne("d1");
  fixture.makeHealer();
  fixture.damageLog("d1", "long metadata");
  fixture.found(true);
  await fixture.heal();
  fixture.nowMs += 25_000;
  await fixture.heal();
  expect(fixture.healer.figures).toMatchObject({ unhealedEntries: 1, healedEntries: 0 });
  expect((await fixture.events())[1]).toContain("another version");
  fixture.nowMs += 40_000;
  await fixture.heal();
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 0, healedEntries: 1 });
  const { replica } = fixture.of("d1");
  expect((await replica.held(OBJECT))?.register.version).toBe(newer);
  expect((await fixture.body("d1")).toString()).toBe("newer");
  const late = ballotOf(NO_INCARNATION, timestampAt(fixture.nowMs - 50_000), "00000002");
  const promised = await replica.prepare(OBJECT, late, [older, lost]);
  expect(promised).toMatchObject({ kind: "refused", fates: ["unknown", "unknown"] });
});

test("a register that the index has lost comes back from the device's own log, and a body that is damaged too from another replica", async () => {
  await using fixture = await new HealFixture().open();
  const body = Buffer.from("small body ".repeat(400));
  const version = await fixture.put(1, body, "metadata");
  const id = Buffer.from(registerKey(OBJECT)).toString("latin1");
  const loseIndex = ({ entries }: IndexPlatter): void => {
    const value = entries.get(id);
    if (value !== undefined) value[20] = (value[20] ?? 0) ^ 1;
  };
  await fixture.openOne("d1", loseIndex);
  fixture.makeHealer();
  await expect(fixture.of("d1").replica.held(OBJECT)).rejects.toMatchObject({ code: "entry-damaged" });
  await fixture.heal();
  expect((await fixture.of("d1").replica.held(OBJECT))?.register.version).toBe(version);
  expect((await fixture.events()).at(-1)).toBe("healed from its own log");
  // The body lies apart from its record, which says something newer of it.
  const { engine } = fixture.of("d1");
  const key = registerKey(OBJECT);
  const entry = engine.get(key);
  if (entry !== undefined) await engine.apply([{ kind: "put", key, value: entry.value, body: { kind: "keep" } }]);
  fixture.damageLog("d1", "small body small");
  await fixture.openOne("d1", loseIndex);
  fixture.makeHealer();
  fixture.found();
  await fixture.heal();
  fixture.nowMs += 60_000;
  await fixture.heal();
  expect((await fixture.body("d1")).equals(body)).toBe(true);
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 0, damagedEntries: 1, healedEntries: 1 });
});

test("more findings than may wait are counted and left to the next round", async () => {
  await using fixture = await new HealFixture().open();
  for (let index = 0; index < 10_010; index++)
    fixture.healer.found(registerKey({ ...OBJECT, path: `/a/c/${index}` }), "test", false);
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 10_000, droppedFindings: 10 });
  await fixture.heal();
  expect(fixture.healer.figures).toMatchObject({ waitingEntries: 0, damagedEntries: 0 });
});
