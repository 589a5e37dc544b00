import { expect, test } from "vitest";
import {
  NOBODY,
  requestsFor,
  type ShownTarget,
  type TargetRequest,
  targetsIn,
  type WantedTarget,
} from "./iscsi-target.ts";

const SHOWN = `Target 9: iqn.a:b
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 19
            Initiator: iqn.2008-11.org.linux-kvm alias: none
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            Backing store path: None
        LUN: 1
            Type: disk
            Size: 1074 MB, Block size: 512
            Backing store path: volume/disk
            Backing store flags: 
    Account information:
        nobody
        b1
    ACL information:
        ALL
        iqn.client
Target 10: iqn.a:c
    System information:
        Driver: iscsi
        State: offline
    LUN information:
        LUN: 0
            Backing store path: None
    Account information:
    ACL information:
\0`;

test("what tgtd shows is read", () => {
  expect(targetsIn(SHOWN)).toEqual([
    {
      tid: 9,
      name: "iqn.a:b",
      isReady: true,
      path: "volume/disk",
      accounts: ["nobody", "b1"],
      initiators: ["ALL", "iqn.client"],
      sessions: [{ id: 19, initiator: "iqn.2008-11.org.linux-kvm" }],
    },
    { tid: 10, name: "iqn.a:c", isReady: false, path: undefined, accounts: [], initiators: [], sessions: [] },
  ]);
  expect(targetsIn("\0")).toEqual([]);
});

const wanted = (users: readonly string[], initiator?: string): WantedTarget => ({
  name: "iqn.a:v",
  path: "v/disk",
  isReadOnly: false,
  serial: "1",
  accounts: users.map((user) => ({ user, secret: `secret of ${user}`, initiator })),
});

test("a target that lets nobody in is told what its disk is, which whoever made it may not have said before he was killed", () => {
  const whole = { tid: 1, name: "iqn.a:v", isReady: true, path: "v/disk", accounts: [NOBODY, "a"], sessions: [] };
  const saysIt = (shown: ShownTarget): boolean =>
    requestsFor([shown], wanted(["a"])).some(({ mode, operation }) => mode === "disk" && operation === "update");
  expect(saysIt({ ...whole, initiators: ["ALL"] })).toBe(false);
  expect(saysIt({ ...whole, initiators: ["ALL"], isReady: false })).toBe(true);
  expect(saysIt({ ...whole, initiators: [] })).toBe(true);
});

/** tgtd as far as it matters: places of accounts, of which it looks at as many as there are accounts. */
class Model {
  readonly places: (string | undefined)[] = [];
  readonly initiators = new Set<string>();
  target: ShownTarget | undefined;

  shown(): readonly ShownTarget[] {
    const { initiators } = this;
    return this.target === undefined ? [] : [{ ...this.target, accounts: this.seen(), initiators: [...initiators] }];
  }

  seen(): string[] {
    const seen = this.places.slice(0, this.places.filter((place) => place !== undefined).length);
    return seen.map((place) => {
      if (place === undefined) throw new Error("tgtd lists an empty place and ends");
      return place;
    });
  }

  do({ mode, operation, tid, parameters = [] }: TargetRequest): void {
    const value = parameters[0]?.[1] ?? "";
    if (mode === "target" && operation === "new")
      this.target = {
        tid: tid ?? 0,
        name: value,
        isReady: true,
        path: undefined,
        accounts: [],
        initiators: [],
        sessions: [],
      };
    if (mode === "disk" && operation === "new" && this.target !== undefined)
      this.target = { ...this.target, path: value };
    if (mode === "account" && operation === "bind") {
      const free = this.places.indexOf(undefined);
      if (!this.places.includes(value)) this.places[free < 0 ? this.places.length : free] = value;
    }
    if (mode === "account" && (operation === "unbind" || operation === "delete") && this.places.includes(value))
      this.places[this.places.indexOf(value)] = undefined;
    if (mode === "target" && operation === "bind") this.initiators.add(value);
    if (mode === "target" && operation === "unbind") this.initiators.delete(value);
  }
}

test("whoever comes and goes, in any order: those who may log in can, nobody else, and there is never a target without accounts", () => {
  const users = ["a", "b", "c", "d"];
  for (let first = 0; first < 16; first++) {
    for (let second = 0; second < 16; second++) {
      const model = new Model();
      for (const chosen of [first, second, first | second, second]) {
        const now = users.filter((_, index) => (chosen & (1 << index)) !== 0);
        for (const request of requestsFor(model.shown(), wanted(now, "iqn.client"))) {
          model.do(request);
          if (model.initiators.size > 0) expect(model.seen()).toContain(NOBODY);
        }
        expect(model.seen().toSorted()).toEqual([...now, NOBODY].toSorted());
        expect(requestsFor(model.shown(), wanted(now, "iqn.client"))).toEqual([]);
      }
    }
  }
});

test("sessions of an initiator that may not be there any more are closed, and all where it cannot be told whose they are", () => {
  const sessions = [
    { id: 1, initiator: "iqn.mine" },
    { id: 2, initiator: "iqn.theirs" },
  ];
  const there = (initiators: readonly string[]): ShownTarget => ({
    tid: 1,
    name: "iqn.a:v",
    isReady: true,
    path: "v/disk",
    accounts: [NOBODY, "mine", "theirs"],
    initiators,
    sessions,
  });
  const cut = (shown: ShownTarget, target: WantedTarget) =>
    requestsFor([shown], target).flatMap(({ sessionId }) => sessionId ?? []);
  expect(cut(there(["iqn.mine", "iqn.theirs"]), wanted(["mine"], "iqn.mine"))).toEqual([2]);
  expect(cut(there(["ALL"]), wanted(["mine"]))).toEqual([1, 2]);
  expect(cut({ ...there(["ALL"]), isReady: false }, wanted(["mine", "theirs"]))).toEqual([1, 2]);
});
