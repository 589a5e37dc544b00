import type { ProcessIdentity } from "../../../common/process-identity.ts";

/**
 * Which export of which process a connection leads to. The host gives each export that a front uses a description of its own, `PID-START/NONCE`:
 * NBD itself does not tell whether one that is connected to again is still the same, with requests of the connection before under way.
 */
export type Incarnation = {
  /** One and the same description: one and the same export. */
  readonly text: string;
  /** Whose memory has what is not flushed. */
  readonly process: ProcessIdentity;
};

export const incarnationText = ({ pid, startTime }: ProcessIdentity, nonce: string): string =>
  `${pid}-${startTime}/${nonce}`;

/** Undefined where it is no such description. */
export const incarnationIn = (description: string | undefined): Incarnation | undefined => {
  const [text, pid, startTime] = /^(\d{1,10})-(\d{1,15})\/\S{1,64}$/.exec(description ?? "") ?? [];
  if (text === undefined || Number(pid) <= 1) return undefined;
  return { text, process: { pid: Number(pid), startTime: Number(startTime) } };
};

/** The process as one word. */
export const processWord = ({ process: { pid, startTime } }: Incarnation): string => `${pid}-${startTime}`;
