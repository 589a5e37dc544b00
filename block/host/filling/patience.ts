/**
 * For so long a read of a backup waits for an object store that does not answer, all attempts together; then whoever reads the volume gets an error, and may
 * ask again. Long enough for a restart of the installation, in which the object service comes last.
 */
export const READ_PATIENCE_MS = 45_000;

/**
 * Whoever waits for what the daemon of a volume has under way (a copy that is ended, connections that are closed) waits for longer than that: a read
 * of a backup may be among it, and a daemon that is given up before is one that does nothing wrong.
 */
export const UNDER_WAY_LIMIT_MS = READ_PATIENCE_MS + 15_000;
