/** A message that somebody may want to hear of. `payload` is plain JSON. */
export type BusMessage = { readonly topic: string; readonly type: string; readonly payload: object };

/** Tells services what others did. */
export type Bus = {
  /** Hands the message to everyone who listens to its topic; waits for nobody, and never throws. */
  publish(message: BusMessage): void;
  /** Calls `listener` with each message of `topic` that is published from now on, in order. Returns what ends it. */
  subscribe(topic: string, listener: (message: BusMessage) => void): () => void;
};

/** The bus of one process. `onError` is told what a listener threw; the other listeners hear the message all the same. */
export const createBus = (onError: (error: unknown, message: BusMessage) => void): Bus => {
  const listeners = new Map<string, Set<(message: BusMessage) => void>>();
  return {
    publish: (message) => {
      for (const listener of listeners.get(message.topic) ?? []) {
        try {
          listener(message);
        } catch (thrown) {
          onError(thrown, message);
        }
      }
    },
    subscribe: (topic, listener) => {
      const known = listeners.get(topic) ?? new Set();
      listeners.set(topic, known.add(listener));
      return () => void known.delete(listener);
    },
  };
};
