/** CPU time that processes took in a stretch of time. */
export type CpuStretch = { readonly cpuMs: number; readonly elapsedMs: number };

/** Above its idle share by no more than this, a server has nothing left to do: two ticks of /proc in a window of 500 ms. */
const QUIET_SHARE = 0.04;

/** Cores in use: 1 is one core all the time. */
export const shareOf = ({ cpuMs, elapsedMs }: CpuStretch): number => (elapsedMs <= 0 ? 0 : cpuMs / elapsedMs);

/** Whether a server that idles at `idleShare` did nothing else in `stretch`. */
export const isQuiet = (stretch: CpuStretch, idleShare: number): boolean => shareOf(stretch) <= idleShare + QUIET_SHARE;

/** What of `stretch` the load caused, when the server takes `idleShare` of a core without any; never negative. */
export const cpuOfLoadMs = ({ cpuMs, elapsedMs }: CpuStretch, idleShare: number): number =>
  Math.max(0, cpuMs - idleShare * elapsedMs);
