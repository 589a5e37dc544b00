import { randomBytes } from "node:crypto";
import { createVolumeHostClient } from "../block/client.ts";
import type { VolumeHost } from "../block/volume-host.ts";
import { BLOCK_HOST_SOCKET } from "../block/wire.ts";
import { readClusterKey } from "../common/cluster-key.ts";
import { RpcClient } from "../common/rpc/client.ts";
import type { RuntimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { NbdSession } from "./nbd-session.ts";

const WRITTEN_BYTES = 8 * 1024 * 1024;
const POLL_MS = 100;
const PATIENCE_MS = 60_000;

/** Asks the block service; resolves with its answer's body, undefined where it says that there is no such thing. */
type Ask = (method: string, path: string, body?: object) => Promise<unknown>;

type DemoStep = { readonly says: string; run(): Promise<void> };

const statusOf = (answer: unknown): string | undefined =>
  (answer as { volume?: { status?: string } } | undefined)?.volume?.status;

/** Resolves with the state that it stays in; undefined once it is gone. */
const settled = async (ask: Ask, id: string): Promise<string | undefined> => {
  for (const deadline = performance.now() + PATIENCE_MS; performance.now() < deadline; await sleep(POLL_MS)) {
    const status = statusOf(await ask("GET", `/volumes/${id}`));
    if (status !== "creating" && status !== "deleting") return status;
  }
  throw new Error(`the volume does not settle within ${PATIENCE_MS / 1000} s`);
};

const writeAndReadBack = async (host: VolumeHost, id: string): Promise<void> => {
  const attachment = { volumeId: id, attachmentId: id, transport: "unix", isReadOnly: false } as const;
  const exported = await host.exportVolume(attachment);
  try {
    if (exported.kind !== "nbd-unix") throw new Error("the volume is not served on a Unix socket");
    const bytes = randomBytes(WRITTEN_BYTES);
    {
      using session = await NbdSession.opened(exported.socketPath, exported.exportName);
      await session.write(session.sizeBytes - WRITTEN_BYTES, bytes);
      await session.flush();
    }
    using session = await NbdSession.opened(exported.socketPath, exported.exportName);
    const read = await session.read(session.sizeBytes - WRITTEN_BYTES, WRITTEN_BYTES);
    if (!read.equals(bytes)) throw new Error("what came back is not what was written");
  } finally {
    await host.unexportVolume(id, id);
  }
};

/** What the demo shows of volumes. */
export const volumeSteps = (ask: Ask, paths: RuntimePaths): readonly DemoStep[] => {
  let id = "";
  return [
    {
      says: "make a volume of 1 GiB",
      run: async () => {
        const made = await ask("POST", "/volumes", { volume: { name: "demo", size: 1 } });
        id = (made as { volume: { id: string } }).volume.id;
        const status = await settled(ask, id);
        if (status !== "available") throw new Error(`the volume is ${status ?? "gone"}, should be available`);
      },
    },
    {
      says: "write 8 MiB to it over NBD, read them back over another connection, compare",
      run: async () => {
        if (id === "") throw new Error("there is no volume");
        using rpc = new RpcClient(paths.socket(BLOCK_HOST_SOCKET), readClusterKey(paths));
        await writeAndReadBack(createVolumeHostClient(rpc), id);
      },
    },
    {
      says: "delete the volume",
      run: async () => {
        if (id === "") throw new Error("there is no volume");
        await ask("DELETE", `/volumes/${id}`);
        const status = await settled(ask, id);
        if (status !== undefined) throw new Error(`the volume is ${status}, should be gone`);
      },
    },
  ];
};
