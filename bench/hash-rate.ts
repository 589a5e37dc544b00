import { availableParallelism } from "node:os";
import { verify } from "@node-rs/argon2";
import { parseIdentityConfig } from "../identity/config.ts";
import { createPasswordHasher } from "../identity/store/password-hasher.ts";

/**
 * Prints how many passwords a second these cores can check when they do nothing else: `node bench/hash-rate.ts MILLISECONDS`. A process of
 * its own with as many checks at once as there are cores, on a hash that identity itself has made, so with its parameters.
 */

const PASSWORD = "a password of the usual length";

const limitMs = Number(process.argv[2] ?? 3000);
const stored = await (await createPasswordHasher(parseIdentityConfig({}).passwordHash)).hash(PASSWORD);
let checked = 0;
const startMs = performance.now();
const checkOn = async (): Promise<void> => {
  while (performance.now() - startMs < limitMs) {
    if (!(await verify(stored, PASSWORD))) throw new Error("the password does not match its own hash");
    checked += 1;
  }
};
await Promise.all(Array.from({ length: availableParallelism() }, checkOn));
process.stdout.write(String((checked * 1000) / (performance.now() - startMs)));
