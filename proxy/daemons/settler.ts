import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import { sleep, type Worker } from "../../common/worker.ts";
import type { Name, Register, UnsettledReply } from "../../storage-node/wire.ts";

/** What is younger may still be under way: a client's request is answered, or given up, within about this. */
const SETTLE_AFTER_MS = 5000;
const ROUND_MS = 1000;
/** One page of a device's scan at a time, with this pause: the rest is the clients'. */
const SCAN_PAUSE_MS = 200;
/** A scan finds what was left before a device's last start; the next one begins this long after, or ten times what it took. */
const SCAN_REST_MS = 30_000;
const SCAN_REST_SHARE = 10;
const CONCURRENCY = 8;
/** Versions remembered as having been finished before, so that a replica that still reports one is brought up to date. */
const REMEMBERED_LIMIT = 10_000;

/** A device that can be asked what is left behind on it; see `DeviceClient.unsettled`. */
export type UnsettledSource = {
  unsettled(olderThanMs: number, from: Uint8Array | undefined): Promise<UnsettledReply>;
};

/** Finishes one register as a reader would; `isAgain`: it was finished before, and a replica reports it still. */
export type Settle = (name: Name, register: Register, isAgain: boolean) => Promise<void>;

const FIRST_KEY = new Uint8Array(0);

/**
 * [B7]: versions that a dead proxy left accepted and unconfirmed, and containers left closing, are finished without anybody reading them.
 * Every proxy runs it; finishing twice is finishing once.
 *
 * @param devices those that there are now: some come later
 */
export const settler = (devices: () => readonly UnsettledSource[], settle: Settle, clock: Clock): Worker => {
  const positions = new Map<UnsettledSource, Uint8Array>();
  const remembered = new Set<string>();
  let scanStartMs = clock.nowMs();
  let nextScanMs = scanStartMs;
  let settled = 0;
  let postponed = 0;
  let unreachable = 0;

  const settleOne = async (name: Name, register: Register): Promise<void> => {
    const id = `${name.space} ${name.path} ${register.version}`;
    const isAgain = remembered.has(id);
    if (remembered.size >= REMEMBERED_LIMIT) remembered.clear();
    remembered.add(id);
    try {
      await settle(name, register, isAgain);
      settled += 1;
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      postponed += 1;
    }
  };

  const settleAll = async (pages: readonly UnsettledReply[], signal: AbortSignal): Promise<void> => {
    const found = new Map<string, UnsettledReply["registers"][number]>();
    for (const { registers } of pages) {
      for (const item of registers) found.set(`${item.name.space} ${item.name.path} ${item.register.version}`, item);
    }
    const items = [...found.values()];
    for (let at = 0; at < items.length && !signal.aborted; at += CONCURRENCY) {
      const part = items.slice(at, at + CONCURRENCY);
      await Promise.all(part.map(({ name, register }) => settleOne(name, register)));
    }
  };

  const ask = async (source: UnsettledSource, from: Uint8Array | undefined): Promise<UnsettledReply | undefined> => {
    try {
      return await source.unsettled(clock.nowMs() - SETTLE_AFTER_MS, from);
    } catch (error) {
      if (!(error instanceof RingsteadError)) throw error;
      unreachable += 1;
      return undefined;
    }
  };

  /** The next page of each device that is being scanned. */
  const scan = async (signal: AbortSignal): Promise<void> => {
    if (positions.size === 0) {
      if (clock.nowMs() < nextScanMs) return;
      scanStartMs = clock.nowMs();
      for (const source of devices()) positions.set(source, FIRST_KEY);
    }
    const pages: UnsettledReply[] = [];
    for (const [source, from] of positions) {
      const page = await ask(source, from);
      if (page?.next === undefined) positions.delete(source);
      else positions.set(source, page.next);
      if (page !== undefined) pages.push(page);
    }
    await settleAll(pages, signal);
    const tookMs = clock.nowMs() - scanStartMs;
    if (positions.size === 0) nextScanMs = clock.nowMs() + Math.max(SCAN_REST_MS, SCAN_REST_SHARE * tookMs);
  };

  let nextRoundMs = 0;
  return {
    name: "settler",
    status: () => ({ settled, postponed, unreachable, devicesScanned: devices().length - positions.size }),
    async work(signal) {
      if (clock.nowMs() >= nextRoundMs) {
        const pages: UnsettledReply[] = [];
        for (const source of devices()) {
          const page = await ask(source, undefined);
          if (page !== undefined) pages.push(page);
        }
        await settleAll(pages, signal);
        nextRoundMs = clock.nowMs() + ROUND_MS;
      }
      await scan(signal);
      return "idle";
    },
    waitForWork: (signal) => sleep(positions.size > 0 ? SCAN_PAUSE_MS : ROUND_MS, signal),
  };
};
