import { sleep, type Worker } from "../common/worker.ts";
import type { Hosts } from "./hosts.ts";
import type { VolumeHost } from "./volume-host.ts";

/** How late a volume shows that an operator opened or closed it. */
const LOOK_MS = 1000;

/**
 * Volumes that an operator of a host has open (`ringstead volume export`): the database knows nothing of these, so that the command does without
 * it. An export of the operator's goes by the volume's own id.
 */
export type OperatorExports = {
  readonly worker: Worker;
  /** As of a second ago. */
  has(volumeId: string): boolean;
  /** As of now. A host that does not answer has nothing open: it will say so itself when something is asked of the volume. */
  look(volumeId: string, backend: string): Promise<boolean>;
};

const openAt = async (host: VolumeHost): Promise<readonly string[]> =>
  (await host.exports())
    .filter(({ volumeId, attachmentIds }) => attachmentIds.includes(volumeId))
    .map(({ volumeId }) => volumeId);

export const createOperatorExports = (hosts: Hosts): OperatorExports => {
  let open: ReadonlySet<string> = new Set();
  const all = async (): Promise<ReadonlySet<string>> => {
    const asked = await Promise.allSettled(hosts.nodes.map((node) => openAt(hosts.of(node))));
    return new Set(asked.flatMap((one) => (one.status === "fulfilled" ? one.value : [])));
  };
  return {
    has: (volumeId) => open.has(volumeId),
    look: (volumeId, backend) =>
      openAt(hosts.of(backend)).then(
        (found) => found.includes(volumeId),
        () => false,
      ),
    worker: {
      name: "exports of operators",
      status: () => ({ open: open.size }),
      work: async () => {
        open = await all();
        return "idle";
      },
      waitForWork: (signal) => sleep(LOOK_MS, signal),
    },
  };
};
