import { text } from "node:stream/consumers";
import { systemClock } from "../common/clock.ts";
import { createIdentityClient, createRevocationFollower, createTokenVerifier } from "../identity/client.ts";
import { isOwner } from "../proxy/swift-api/access.ts";
import type { ColdCheckSpec } from "./cold-check.ts";
import type { LoadResult } from "./load.ts";

/**
 * Checks tokens as the proxy does with one that it has not seen: signature, end and claims; revocations and projects' states, as far as identity
 * has told of them; the right to an object of the account. See cold-check.ts.
 */

/** After so many of them the code is as fast as it gets. */
const WARM_UP_CHECKS = 2_000;

const { keysDir, socketPath, account, live, revoked, limitMs }: ColdCheckSpec = JSON.parse(await text(process.stdin));

const follower = createRevocationFollower({
  client: createIdentityClient(socketPath),
  clock: systemClock,
  graceSeconds: 60,
});
/** Its first answer has all events that may still matter. */
await follower.worker.work(new AbortController().signal);
if (follower.source.list.count < revoked.length) throw new Error("the revocations have not come");

type Verifier = ReturnType<typeof createTokenVerifier>;

const newVerifier = (): Verifier => createTokenVerifier({ keysDir, clock: systemClock, revocations: follower.source });

const isRefused = async (verifier: Verifier, token: string): Promise<boolean> => {
  try {
    await verifier.verify(token);
    return false;
  } catch {
    return true;
  }
};

const latenciesUs: number[] = [];
let failed = 0;
let firstFailure: string | undefined;
const fail = (reason: string): void => {
  failed += 1;
  firstFailure ??= reason;
};

/** All tokens once, by a verifier that has seen none of them. False when the time is over. */
const pass = async (verifier: Verifier, deadlineMs: number, checksMax: number): Promise<boolean> => {
  for (const token of live.slice(0, checksMax)) {
    const beginMs = performance.now();
    if (beginMs >= deadlineMs) return false;
    const seen = verifier.verify(token);
    // A promise is what only the very first one brings: the key is not known yet.
    const context = seen instanceof Promise ? await seen : seen;
    if (!isOwner(context, account)) fail("a token without the right to its own account");
    latenciesUs.push((performance.now() - beginMs) * 1000);
  }
  return true;
};

await pass(newVerifier(), Infinity, WARM_UP_CHECKS);
latenciesUs.length = 0;
const cpuBefore = process.cpuUsage();
const startMs = performance.now();
while (await pass(newVerifier(), startMs + limitMs, live.length));
const cpu = process.cpuUsage(cpuBefore);
/** Of all threads, so that V8's helpers count too. */
const cpuMs = (cpu.user + cpu.system) / 1000;

const verifier = newVerifier();
for (const token of revoked) if (!(await isRefused(verifier, token))) fail("a revoked token was accepted");

const result: LoadResult = {
  latenciesUs: latenciesUs.map(Math.round),
  answered: latenciesUs.length,
  backgroundAnswered: 0,
  // What is asked for is a rate per core: what other processes had of this one meanwhile does not count.
  elapsedMs: cpuMs,
  begun: latenciesUs.length,
  clientCpuMs: cpuMs,
  failed,
  firstFailure,
};
// More than a pipe takes at once.
process.stdout.write(JSON.stringify({ ...result, rssBytes: process.memoryUsage.rss() }), () => process.exit(0));
