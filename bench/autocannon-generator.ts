import { text } from "node:stream/consumers";
import autocannon from "autocannon";
import { type LoadResult, type LoadSpec, objectName, type StandingWork } from "./load.ts";

/** The standing scenarios, driven by autocannon, in a process of its own. See load.ts for its input and output. */

/** autocannon notices only at these intervals that its time is over. */
const SAMPLE_MS = 100;
/** A server that says nothing for so long has failed. */
const SILENCE_LIMIT_S = 60;

type Traffic = {
  readonly request: autocannon.Request;
  readonly status: number;
  /** An answer, its head included, is at least so long. */
  readonly bytesMin: number;
  begun(): number;
};

const trafficOf = (spec: LoadSpec, work: StandingWork): Traffic => {
  if (work.kind === "request") {
    const { method, path, headers, body, status } = work;
    const request = { method, path, headers, ...(body === undefined ? {} : { body }) };
    return { request, status, bytesMin: 0, begun: () => 0 };
  }
  // Its parser waits for the body that a HEAD's Content-Length speaks of; a load that changes what exists has to know each answer.
  if (work.method !== "GET") throw new Error(`autocannon is not used for ${work.method} of objects`);
  let begun = 0;
  const headers = { "X-Auth-Token": spec.token };
  const setupRequest = (request: autocannon.Request): autocannon.Request => {
    const index = work.first + (begun % work.count);
    begun += 1;
    request.path = `${spec.accountPath}/${spec.front.container}/${objectName(work.prefix, index, work.suffix)}`;
    return request;
  };
  const request: autocannon.Request = { method: "GET", headers, setupRequest };
  return { request, status: 200, bytesMin: work.sizeBytes, begun: () => begun };
};

const run = async (spec: LoadSpec): Promise<LoadResult> => {
  const { work, clients } = spec.front;
  if (work.kind !== "objects" && work.kind !== "request") throw new Error(`autocannon is not used for ${work.kind}`);
  const traffic = trafficOf(spec, work);
  const latenciesUs: number[] = [];
  let answered = 0;
  let failed = 0;
  let firstFailure: string | undefined;
  const fail = (reason: string): void => {
    failed += 1;
    firstFailure ??= reason;
  };
  const cpuBefore = process.cpuUsage();
  const startMs = performance.now();
  await new Promise<void>((resolve, reject) => {
    const instance = autocannon(
      {
        url: `http://${spec.host}:${spec.port}`,
        connections: clients,
        duration: spec.limitMs / 1000,
        sampleInt: SAMPLE_MS,
        timeout: SILENCE_LIMIT_S,
        requests: [traffic.request],
      },
      (error: unknown) => (error === null ? resolve() : reject(error)),
    );
    instance.on("response", (_client, status, byteCount, latencyMs) => {
      answered += 1;
      if (status !== traffic.status) fail(`status ${status}`);
      else if (byteCount < traffic.bytesMin) fail(`${byteCount} bytes of ${traffic.bytesMin}`);
      else latenciesUs.push(Math.round(latencyMs * 1000));
    });
    instance.on("reqError", (error: unknown) => fail(String(error)));
  });
  const elapsedMs = performance.now() - startMs;
  const cpu = process.cpuUsage(cpuBefore);
  return {
    latenciesUs,
    answered,
    backgroundAnswered: 0,
    elapsedMs,
    begun: traffic.begun(),
    clientCpuMs: (cpu.user + cpu.system) / 1000,
    failed,
    firstFailure,
  };
};

const spec: LoadSpec = JSON.parse(await text(process.stdin));
process.stdout.write(JSON.stringify(await run(spec)));
