import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { Compile } from "typebox/compile";
import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { Log } from "../../common/log.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { IdentityClient } from "../client.ts";
import type { RevocationNews } from "../revocation-follower.ts";
import { contextOf, type TokenContext } from "../token-verifier.ts";
import { type Ec2Response, ec2Response } from "../wire.ts";
import { readAccessKeyFile, writeAccessKeyFile } from "./access-key-file.ts";
import { accessKeyFileKey, encodeRecord, NONCE_BYTES, RECORD_MAX_BYTES } from "./format.ts";

/** Keys remembered, some 2 KiB each; beyond it the one that was used longest ago goes. */
const KEYS_MAX = 8_192;
/** Questions under way at once; beyond it whoever brings an unknown key is told to come again. */
const QUESTIONS_MAX = 256;
/** A key in use is asked for again after this time: a directory's user can be disabled without any event here. */
const CONFIRM_INTERVAL_MS = 15 * 60_000;
/** A request with a known key waits no longer for that. */
const CONFIRM_WITHIN_MS = 2_000;
/** While the identity service cannot tell, between two questions for one key. */
const CONFIRM_RETRY_MS = 5_000;
/** Until a change is in the file, and what an event voids is gone from it. */
const KEEP_INTERVAL_MS = 2_000;
/** The identity service makes 32 hexadecimal digits; clients may bring others. */
const ACCESS = /^[\x21-\x7e]{1,255}$/;

/** An S3 key, which the EC2 credential of a user is. */
type AccessKey = {
  /** What its requests are signed with. */
  readonly secret: string;
  /** On whose behalf they act, as a token would say it. */
  readonly context: TokenContext;
};

/** The S3 keys that this process was asked about. Disposal writes what the file lacks. */
export type AccessKeys = AsyncDisposable & {
  /**
   * The key with this id, undefined where there is none or nothing is left of its right; at once, without a promise, when it is known. Rejects
   * with RingsteadError `identity-unavailable` or `too-busy` where that cannot be said now.
   */
  find(access: string): AccessKey | undefined | Promise<AccessKey | undefined>;
  /** Forgets what has ended and writes the file. */
  readonly worker: Worker;
};

export type AccessKeysOptions = {
  readonly client: Pick<IdentityClient, "ec2">;
  readonly news: RevocationNews;
  readonly clock: Clock;
  /** Seals the file. */
  readonly clusterKey: Buffer;
  /** Holds the file: `runtimePaths(DIR).identityDir`. */
  readonly folder: string;
  readonly log: Log;
};

type Entry = {
  readonly key: AccessKey;
  /** Undefined where it is too large to keep. */
  readonly record: Buffer | undefined;
  /** The revocations' sequence at which it was found valid last. */
  checkedAt: number;
  /** The connection and the time at which the identity service is asked next; -1: before all others. */
  connection: number;
  askAgainAtMs: number;
};

const answerCheck = Compile(ec2Response);

/** What a record of the file says; undefined for anything but an answer about that key. */
const answerOf = (access: string, text: string | undefined): Ec2Response | undefined => {
  if (text === undefined) return undefined;
  const value: unknown = JSON.parse(text);
  return answerCheck.Check(value) && value.access === access ? value : undefined;
};

/**
 * Opens the cache of S3 keys. A hit is one look-up, a comparison of its end and one of the revocations' sequence. What an event fits is asked
 * for again before it is believed. A key that the identity service told of is good for 24 hours; as long as revocations are heard, or within the
 * grace that tokens have, it goes on while that service is away, after a restart too: what is read from the file is confirmed first where that can be done.
 */
export const openAccessKeys = async (options: AccessKeysOptions): Promise<AccessKeys> => {
  const { client, news, clock, log } = options;
  const path = join(options.folder, "access-keys");
  const fileKey = accessKeyFileKey(options.clusterKey);
  /** Used last at the end. */
  const entries = new Map<string, Entry>();
  const asking = new Map<string, Promise<AccessKey | undefined>>();
  /** What the file lacks is what changed since. */
  let changes = 0;
  let keptChanges = 0;
  const isKept = (): boolean => keptChanges === changes;

  const remember = (access: string, entry: Entry): void => {
    entries.delete(access);
    entries.set(access, entry);
    if (entries.size <= KEYS_MAX) return;
    for (const oldest of entries.keys()) {
      entries.delete(oldest);
      break;
    }
  };
  const forget = (access: string): void => {
    if (entries.delete(access)) changes += 1;
  };

  const question = async (access: string): Promise<AccessKey | undefined> => {
    // Whoever is connected when it is asked has missed nothing of what comes after the answer.
    const { connection } = news;
    const answer = await client.ec2(access);
    if (answer === undefined) {
      forget(access);
      return undefined;
    }
    const key: AccessKey = { secret: answer.secret, context: contextOf(answer.claims) };
    const record = encodeRecord(fileKey, access, JSON.stringify(answer), randomBytes(NONCE_BYTES));
    remember(access, {
      key,
      record: record.length > RECORD_MAX_BYTES ? undefined : record,
      // Judged by its own time: what was told before is in the answer.
      checkedAt: 0,
      connection,
      askAgainAtMs: clock.nowMs() + CONFIRM_INTERVAL_MS,
    });
    changes += 1;
    return key;
  };

  /** Asks the identity service, once for all who wait for the same key. */
  const ask = (access: string): Promise<AccessKey | undefined> => {
    const known = asking.get(access);
    if (known !== undefined) return known;
    if (asking.size >= QUESTIONS_MAX) {
      return Promise.reject(new RingsteadError("too-busy", "Too many unknown keys are asked for."));
    }
    const asked = question(access).finally(() => asking.delete(access));
    asking.set(access, asked);
    return asked;
  };

  /** A known key, asked for again; as it is known where no answer comes in time. */
  const confirmed = async (access: string, entry: Entry): Promise<AccessKey | undefined> => {
    entry.askAgainAtMs = clock.nowMs() + CONFIRM_RETRY_MS;
    entry.connection = news.connection;
    const late = new AbortController();
    const asKnown = (): AccessKey => entry.key;
    try {
      return await Promise.race([ask(access).catch(asKnown), sleep(CONFIRM_WITHIN_MS, late.signal).then(asKnown)]);
    } finally {
      late.abort();
    }
  };

  const isOver = (entry: Entry): boolean => {
    if (entry.key.context.expiresAtMs <= clock.nowMs()) return true;
    const { list } = news;
    // Either kind of event: what voids tokens (another password) may leave the key, which only an answer tells.
    if (list.judge(entry.key.context, entry.checkedAt) !== "valid") return true;
    entry.checkedAt = list.sequence;
    return false;
  };

  /** Whether nothing can have happened to it that was not heard. */
  const isConfirmed = (entry: Entry): boolean =>
    entry.connection === news.connection && clock.nowMs() < entry.askAgainAtMs;

  const keep = async (): Promise<void> => {
    const written = changes;
    await writeAccessKeyFile(
      path,
      [...entries.values()].flatMap(({ record }) => record ?? []),
    );
    keptChanges = written;
  };

  for (const { access, bytes, opened } of await readAccessKeyFile(path, fileKey, log)) {
    const answer = answerOf(access, opened);
    if (answer === undefined) continue;
    const key = { secret: answer.secret, context: contextOf(answer.claims) };
    remember(access, { key, record: bytes, checkedAt: 0, connection: -1, askAgainAtMs: 0 });
  }

  return {
    find: (access) => {
      const entry = entries.get(access);
      if (entry === undefined) return ACCESS.test(access) ? ask(access) : undefined;
      if (isOver(entry)) {
        forget(access);
        return ask(access);
      }
      if (!news.isWithinGrace()) return ask(access);
      remember(access, entry);
      return isConfirmed(entry) || news.isSilent() ? entry.key : confirmed(access, entry);
    },
    worker: {
      name: "access-keys",
      status: () => ({ known: entries.size, isKept: isKept() }),
      work: async () => {
        for (const [access, entry] of entries) if (isOver(entry)) forget(access);
        if (!isKept()) await keep();
        return "idle";
      },
      waitForWork: (signal) => sleep(KEEP_INTERVAL_MS, signal),
    },
    [Symbol.asyncDispose]: async () => {
      if (isKept()) return;
      try {
        await keep();
      } catch (thrown) {
        // They are asked for again; a disk that is full must not hold up an end.
        log.warn("S3 keys could not be kept", { path, error: thrown });
      }
    },
  };
};
