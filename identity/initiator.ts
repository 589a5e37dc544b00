import { AsyncLocalStorage } from "node:async_hooks";

/** On whose behalf something happens. */
export type Initiator = {
  readonly userId: string | undefined;
  readonly projectId: string | undefined;
  readonly remoteAddress: string | undefined;
  readonly requestId: string | undefined;
};

const storage = new AsyncLocalStorage<Initiator>();

/** Runs `work`; what it writes is then known as the initiator's deed. */
export const actingFor = <Result>(initiator: Initiator, work: () => Result): Result => storage.run(initiator, work);

/** Undefined outside of a request: the service itself. */
export const currentInitiator = (): Initiator | undefined => storage.getStore();
