import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { RingsteadError } from "../../common/errors.ts";
import { silentLog } from "../../common/log.ts";
import { RevocationList } from "../core/revocation.ts";
import type { RevocationNews } from "../revocation-follower.ts";
import type { Ec2Response } from "../wire.ts";
import { type AccessKeys, openAccessKeys } from "./access-keys.ts";

const NOW_MS = 1_800_000_000_000;
const KEYS_MAX = 8_192;
const QUESTIONS_MAX = 256;

let folder: string;
let nowMs: number;
/** What the identity service does when it is asked. */
let answer: (access: string) => Promise<Ec2Response | undefined>;
let asked: string[];
/** Another connection: known keys are to be confirmed. */
let connection: number;

const keyOf = (access: string, secret = "secret"): Ec2Response => ({
  access,
  secret,
  claims: {
    sub: "user",
    un: "owner",
    ud: "default",
    pj: "project",
    pn: "project",
    dm: "default",
    rl: ["member"],
    am: ["ec2credential"],
    iat: nowMs / 1000,
    exp: nowMs / 1000 + 86_400,
    jti: access,
  },
});

const open = (): Promise<AccessKeys> => {
  const news: RevocationNews = {
    list: new RevocationList(1),
    assertFresh: () => {},
    recheck: undefined,
    get connection() {
      return connection;
    },
    isSilent: () => false,
    isWithinGrace: () => true,
  };
  const client = {
    ec2: (access: string) => {
      asked.push(access);
      return answer(access);
    },
  };
  return openAccessKeys({
    client,
    news,
    clock: { nowMs: () => nowMs },
    clusterKey: Buffer.alloc(32, 1),
    folder,
    log: silentLog,
  });
};

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ringstead-access-keys-"));
  nowMs = NOW_MS;
  asked = [];
  connection = 1;
  answer = (access) => Promise.resolve(keyOf(access));
});

afterEach(() => rmSync(folder, { recursive: true }));

test("an identity service that is there and cannot say leaves known keys as they are, and is not asked at each request", async () => {
  await using keys = await open();
  const known = await keys.find("known");
  connection += 1;
  answer = () => Promise.reject(new RingsteadError("too-busy", "503"));
  for (let count = 0; count < 10; count += 1) expect(await keys.find("known")).toBe(known);
  expect(asked).toEqual(["known", "known"]);
  await expect(keys.find("unknown")).rejects.toMatchObject({ code: "too-busy" });
  nowMs += 5_000;
  answer = (access) => Promise.resolve(keyOf(access, "another"));
  expect(await keys.find("known")).toMatchObject({ secret: "another" });
});

test("an identity service that hangs holds a request with a known key up for two seconds at most", async () => {
  await using keys = await open();
  const known = await keys.find("known");
  connection += 1;
  answer = () => new Promise(() => {});
  const startedAtMs = performance.now();
  expect(await keys.find("known")).toBe(known);
  expect(performance.now() - startedAtMs).toBeLessThan(4_000);
  // Not held up again at once.
  expect(keys.find("known")).toBe(known);
});

test("a key in use is asked for again every quarter of an hour, and is gone when the answer is that it is", async () => {
  await using keys = await open();
  await keys.find("known");
  nowMs += 15 * 60_000 - 1;
  expect(keys.find("known")).not.toBeInstanceOf(Promise);
  nowMs += 1;
  answer = () => Promise.resolve(undefined);
  expect(await keys.find("known")).toBeUndefined();
  expect(asked).toEqual(["known", "known"]);
});

test("so many keys are remembered and no more: the one that was used longest ago goes", async () => {
  await using keys = await open();
  for (let index = 0; index < KEYS_MAX; index += 1) await keys.find(`key-${index}`);
  expect(keys.find("key-0")).not.toBeInstanceOf(Promise);
  await keys.find("one-more");
  asked = [];
  expect(keys.find("key-0")).not.toBeInstanceOf(Promise);
  await keys.find("key-1");
  expect(asked).toEqual(["key-1"]);
  expect(keys.worker.status()["known"]).toBe(KEYS_MAX);
  await keys.worker.work(AbortSignal.timeout(10_000));
  expect(statSync(join(folder, "access-keys")).size).toBeLessThan(KEYS_MAX * 1_024);
});

test("a crowd of unknown keys asks so many questions at once and no more, the others are told to come again", async () => {
  await using keys = await open();
  answer = () => new Promise(() => {});
  for (let index = 0; index < QUESTIONS_MAX; index += 1) void keys.find(`key-${index}`);
  expect(asked).toHaveLength(QUESTIONS_MAX);
  await expect(keys.find("one-more")).rejects.toMatchObject({ code: "too-busy" });
  expect(asked).toHaveLength(QUESTIONS_MAX);
});

test("a secret too large for the file is good as long as the process lives", async () => {
  const large = "x".repeat(9_000);
  answer = (access) => Promise.resolve(keyOf(access, access === "large" ? large : "small"));
  const first = await open();
  await first.find("large");
  await first.find("small");
  expect(first.find("large")).toMatchObject({ secret: large });
  await first[Symbol.asyncDispose]();
  const second = await open();
  connection += 1;
  answer = () => Promise.reject(new RingsteadError("identity-unavailable", "away"));
  expect(await second.find("small")).toMatchObject({ secret: "small" });
  await expect(second.find("large")).rejects.toMatchObject({ code: "identity-unavailable" });
});
