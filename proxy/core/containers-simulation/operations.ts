import type { Incarnation } from "../../../common/ballot.ts";
import type { Name, Register } from "../../../storage-node/wire.ts";
import { presentContainer, putContainer, readContainer } from "../container-script.ts";
import type { Operation } from "./history.ts";
import type { SimulatedProxy } from "./simulated-proxy.ts";
import { objectName, placeOf, textOf, type World } from "./world.ts";
import { finishObject, type ObjectWrite, writeObject } from "../object-script.ts";
import { countTwice, deleteLookingAgain, readingContainer } from "./planted-mistakes.ts";
import type { WriteRecord } from "../register-write.ts";
import { isFinal } from "../script.ts";
import { deleteWhole } from "../shard-deletion.ts";
import { countContainer, listContainer } from "../shard-list.ts";

/** One row in each message, so that a copy of two names takes two. */
export const COPY_SETTINGS = { pageRows: 1, messageRows: 1 };

export const ALL_ROWS = { marker: "", endMarker: "", prefix: "", isReverse: false, limit: 100 };

/** What a script needs to know of the container first: from memory, which may be out of date, or by a read. */
const known = async (
  { random, memoryChance }: World,
  proxy: SimulatedProxy,
): Promise<Incarnation | "absent" | "unavailable"> => {
  if (proxy.cached !== undefined && random.unit() < memoryChance) return proxy.cached;
  const found = await proxy.run(readContainer(proxy.place));
  proxy.cached = typeof found === "string" ? undefined : found.record.incarnation;
  if (typeof found !== "string") proxy.memory.learn(found);
  return typeof found === "string" ? found : found.record.incarnation;
};

const writeIt = async (
  world: World,
  proxy: SimulatedProxy,
  name: string,
  given: ObjectWrite,
  isStaged: boolean,
): Promise<Pick<Operation, "status" | "version"> | "stopped"> => {
  const incarnation = await known(world, proxy);
  if (incarnation === "unavailable") return { status: undefined };
  if (incarnation === "absent") return { status: 404 };
  const sent = { staged: isStaged, used: new Set<number>() };
  const script = writeObject(placeOf(name, proxy.place), incarnation, given, isStaged);
  const isReading = world.mutation === "the container of a refused row is read without a PREPARE [B5]";
  const result = await proxy.run(isReading ? readingContainer(script, proxy.place) : script, sent);
  switch (result.kind) {
    case "done":
      return { status: 200, version: result.version };
    case "no-container":
      proxy.cached = undefined;
      return { status: 404 };
    case "unknown":
    case "no-space":
      return { status: undefined };
    case "stopped":
      return "stopped";
  }
};

const isThere = (base: Register | undefined): base is Register =>
  base !== undefined && !base.isTombstone && base.state !== "void";

const getIt = async (proxy: SimulatedProxy, name: string): Promise<Register | "absent" | "unknown"> => {
  for (let attempt = 0; attempt < 10; attempt++) {
    const found = await proxy.read(objectName(name));
    if (proxy.isDead) await new Promise(() => {});
    if (found === undefined) return "unknown";
    if (found.register !== undefined && !isFinal(found)) {
      const end = await proxy.run(finishObject(placeOf(name, proxy.place), found.register, found.isSettled));
      if (end === "unavailable") return "unknown";
      if (end === "again") continue;
    }
    return isThere(found.register) ? found.register : "absent";
  }
  return "unknown";
};

type Outcome = Partial<Pick<Operation, "value" | "version" | "listed">> & { readonly status: Operation["status"] };

const figuresOf = ({ mutation }: World, ...[place, record]: Parameters<typeof countContainer<Name>>) =>
  mutation === "figures count a name where it is and where it goes [S4]"
    ? countTwice(place, record)
    : countContainer(place, record);

/** Does it as a client's request would be done; a proxy that dies meanwhile never ends it. `bodyLength`: an even one is staged beforehand. */
export const perform = async (
  world: World,
  kind: Operation["kind"],
  proxy: SimulatedProxy,
  name: string,
  value: string,
  bodyLength: number,
): Promise<Outcome> => {
  const given: WriteRecord = {
    isTombstone: false,
    bodyLength,
    metadata: Buffer.from(value),
    body: "given",
    bodyVersion: undefined,
  };
  const isStaged = bodyLength % 2 === 0;
  switch (kind) {
    case "create": {
      const result = await proxy.run(putContainer(proxy.place, (headers) => ({ ...headers, by: value }), false));
      if (typeof result === "string") return { status: undefined };
      proxy.cached = result.record.incarnation;
      proxy.memory.learn(result);
      return { status: 200 };
    }
    case "drop": {
      const forgets = world.mutation === "a retry of closing looks at rows again [B4]";
      const deletion = forgets ? deleteLookingAgain(proxy.place) : deleteWhole(proxy.place, COPY_SETTINGS);
      const result = await proxy.run(deletion);
      proxy.cached = undefined;
      if (result === "unknown" || result === "no-space" || result === "changing") return { status: undefined };
      return { status: ({ deleted: 200, absent: 404, "not-empty": 409 } as const)[result] };
    }
    case "look":
    case "list": {
      let found = await proxy.run(readContainer(proxy.place));
      if (typeof found === "string") return { status: found === "absent" ? 404 : undefined };
      const { incarnation } = found.record;
      proxy.cached = incarnation;
      if (kind === "look") return { status: 200 };
      for (let attempt = 0; attempt < 8; attempt++) {
        proxy.memory.learn(found);
        const { record } = found;
        const rows = await proxy.run(listContainer(proxy.place, record, ALL_ROWS));
        const count = world.shards !== undefined ? await proxy.run(figuresOf(world, proxy.place, record)) : undefined;
        if (typeof rows !== "string" && typeof count !== "string")
          return { status: 200, listed: { incarnation, rows, count: count?.rows } };
        if (rows === "unavailable" || count === "unavailable") return { status: undefined };
        found = await proxy.run(presentContainer(proxy.place));
        if (found === "unavailable") return { status: undefined };
        if (found === "absent" || found.record.incarnation !== incarnation) return { status: 404 };
      }
      return { status: undefined };
    }
    case "put": {
      const result = await writeIt(world, proxy, name, { kind: "plain", record: given }, isStaged);
      return result === "stopped" ? { status: undefined } : result;
    }
    case "create-object": {
      const decide = (base: Register | undefined): WriteRecord | "stop" => (isThere(base) ? "stop" : given);
      const result = await writeIt(world, proxy, name, { kind: "conditional", decide }, isStaged);
      return result === "stopped" ? { status: 412 } : result;
    }
    case "post": {
      const decide = (base: Register | undefined): WriteRecord | "stop" =>
        isThere(base)
          ? {
              isTombstone: false,
              bodyLength: base.bodyLength,
              metadata: Buffer.from(`${textOf(base.metadata).split("+")[0]}${value}`),
              body: "keep",
              bodyVersion: base.bodyVersion,
            }
          : "stop";
      const result = await writeIt(world, proxy, name, { kind: "conditional", decide }, false);
      return result === "stopped" ? { status: 404 } : result;
    }
    case "delete": {
      const tombstone = {
        ...given,
        isTombstone: true,
        bodyLength: 0,
        metadata: Buffer.alloc(0),
        body: "none",
      } as const;
      const decide = (base: Register | undefined): WriteRecord | "stop" => (isThere(base) ? tombstone : "stop");
      const result = await writeIt(world, proxy, name, { kind: "conditional", decide }, false);
      return result === "stopped" ? { status: 404 } : result;
    }
    case "get": {
      const found = await getIt(proxy, name);
      if (found === "unknown") return { status: undefined };
      return found === "absent"
        ? { status: 404 }
        : { status: 200, value: textOf(found.metadata), version: found.version };
    }
  }
};
