import type { Ballot } from "../../common/ballot.ts";
import { RingsteadError } from "../../common/errors.ts";
import { INLINE_BODY_LIMIT_BYTES, type Proposal, TRANSFER_BLOCK_BYTES } from "../../storage-node/wire.ts";
import { stageAt } from "./body-upload.ts";
import type { ReplicaSet } from "./partition.ts";
import { PassingWait } from "./passing-wait.ts";
import type { WriteBody } from "./register-send.ts";
import { healthyFirst, type Replica } from "./replicas.ts";
import { downloadBudget } from "./transfer-budget.ts";

const BODY_TIMEOUT_MS = 10_000;
/** A busy disk may take its time; a node that has answered nothing at all for so long is left for the next replica. */
const SILENT_LIMIT_MS = 2000;

/** A stream begins with blocks of this size; a client that takes them fast gets larger ones, a slow one smaller ones. */
const FIRST_BLOCK_BYTES = 256 * 1024;
const SLOW_BLOCK_BYTES = 64 * 1024;
/** A block that takes a client longer is a slow client's. */
const SLOW_BLOCK_MS = 250;

/**
 * [R3]: blocks of exactly one body version from `offset`; where one replica fails, the next goes on at the same offset, and where all do, the one
 * whose node is back first. While a fast
 * client takes a block the next one is asked for; a slow one holds one small block. Errors: "body-unavailable".
 */
export async function* streamBody(
  { name, partition }: ReplicaSet,
  bodyVersion: Ballot,
  holders: readonly Replica[],
  offset: number,
  length: number,
): AsyncGenerator<Buffer, void, void> {
  let { members } = partition;
  let sources = [...holders, ...healthyFirst(name, members.replicas).filter((replica) => !holders.includes(replica))];
  const end = offset + length;
  let source = 0;
  const ask = async (at: number, size: number, wait = new PassingWait()): Promise<Buffer> => {
    for (; source < sources.length; source++) {
      const replica = sources[source];
      if (replica === undefined) break;
      try {
        const bytes = await unlessSilent(
          replica,
          replica.client.readBody(name, bodyVersion, at, size, BODY_TIMEOUT_MS),
        );
        replica.heard(undefined);
        if (bytes.length > 0) return bytes;
      } catch (error) {
        if (!(error instanceof RingsteadError)) throw error;
        replica.heard(error);
      }
    }
    if (members !== partition.members) {
      // Those that were members when the stream began may have given it back since.
      ({ members } = partition);
      sources = [...healthyFirst(name, members.replicas)];
      source = 0;
      return ask(at, size, wait);
    }
    if (sources.some(({ mayReturn }) => mayReturn) && (await wait.next())) {
      source = 0;
      return ask(at, size, wait);
    }
    throw new RingsteadError("body-unavailable", "no replica can give the object's bytes", { path: name.path });
  };
  // What the log holds is read and checked as a whole.
  let blockBytes = length <= INLINE_BODY_LIMIT_BYTES ? INLINE_BODY_LIMIT_BYTES : FIRST_BLOCK_BYTES;
  let at = offset;
  let next: { readonly size: number; readonly bytes: Promise<Buffer> } | undefined;
  let takenBytes = 0;
  try {
    while (at < end) {
      if (next === undefined) {
        const size = Math.min(blockBytes, end - at);
        await downloadBudget.take(size);
        takenBytes = size;
        next = { size, bytes: ask(at, size) };
      }
      const { size } = next;
      const bytes = await next.bytes;
      next = undefined;
      at += bytes.length;
      const following = Math.min(blockBytes, end - at);
      if (following > 0 && blockBytes >= FIRST_BLOCK_BYTES && downloadBudget.tryTake(following)) {
        takenBytes += following;
        next = { size: following, bytes: ask(at, following) };
        next.bytes.catch(() => {});
      }
      const startMs = performance.now();
      yield bytes;
      takenBytes -= size;
      downloadBudget.give(size);
      const isSlow = performance.now() - startMs > SLOW_BLOCK_MS;
      blockBytes = isSlow ? SLOW_BLOCK_BYTES : Math.min(2 * blockBytes, TRANSFER_BLOCK_BYTES);
    }
  } finally {
    downloadBudget.give(takenBytes);
  }
}

/** `answer`, or "rpc-timeout" as soon as the replica's node turns out to have stopped. */
const unlessSilent = <T>(replica: Replica, answer: Promise<T>): Promise<T> =>
  new Promise((resolve, reject) => {
    const startMs = performance.now();
    const timer = setInterval(() => {
      if (performance.now() - startMs < SILENT_LIMIT_MS || !replica.isSilent(SILENT_LIMIT_MS)) return;
      clearInterval(timer);
      reject(new RingsteadError("rpc-timeout", "the node has stopped answering"));
    }, SILENT_LIMIT_MS / 4);
    answer.then(resolve, reject).finally(() => clearInterval(timer));
  });

/**
 * [A4]: the body of a proposal for one replica that lacks it: what the caller still has at hand, else copied from a replica that holds
 * exactly this body version, staged where it is large. Undefined when it cannot be had now.
 */
export const supplyBody = async (
  set: ReplicaSet,
  target: Replica,
  proposal: Proposal,
  body: WriteBody,
): Promise<{ readonly bytes: Uint8Array } | { readonly stagedIds: readonly number[] } | undefined> => {
  // After the write its memory may have been given back: then others have the bytes.
  if (body.kind === "bytes" && body.bytes.length === proposal.bodyLength) return { bytes: body.bytes };
  if (body.kind === "staged") {
    // Where the first ACCEPT was refused the staged file is still there; where it never arrived, the others have its bytes.
    const id = body.ids.get(target);
    if (id !== undefined) return { stagedIds: [id] };
  }
  const source = streamBody(set, proposal.bodyVersion, [], 0, proposal.bodyLength);
  try {
    if (proposal.bodyLength <= INLINE_BODY_LIMIT_BYTES) {
      const blocks: Buffer[] = [];
      for await (const block of source) blocks.push(block);
      return { bytes: Buffer.concat(blocks) };
    }
    return { stagedIds: [await stageAt(target, set.name, source)] };
  } catch (error) {
    if (error instanceof RingsteadError) return undefined;
    throw error;
  }
};
