import fc from "fast-check";
import { stringify } from "smol-toml";
import { expect, test } from "vitest";
import { parseClusterFile, resolveConfig } from "./config.ts";
import { RingsteadError } from "./errors.ts";

const RUNS = { seed: 20_268, numRuns: 300 };
const KEYS =
  "bind public_url port_offset devices device replicas only admin_password tls_cert tls_key metrics_bind partition_power region node identity_node rpc_port detach __proto__".split(
    " ",
  );

const attempt = (text: string): void => {
  try {
    const config = resolveConfig(parseClusterFile(text, "cluster.toml"), "/data", "n1", "host");
    expect(Object.isFrozen(config)).toBe(true);
  } catch (error) {
    if (error instanceof RingsteadError && error.code === "invalid-config") return;
    throw error;
  }
};

test("any text is a configuration, or invalid-config", () => {
  const line = fc.array(
    fc.oneof(
      fc.constantFrom(...KEYS, "=", "[", "]", "[node.n1]", '"', "\n", "{", "}", "'''", "1979-05-27"),
      fc.string(),
    ),
  );
  fc.assert(
    fc.property(line, (parts) => attempt(parts.join(" "))),
    RUNS,
  );
});

test("any value of any key is a configuration, or invalid-config", () => {
  const value = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.double({ noNaN: true }),
    fc.boolean(),
    fc.array(fc.string(), { maxLength: 4 }),
    fc.dictionary(
      fc.constantFrom("n1", "n2", "constructor"),
      fc.dictionary(fc.constantFrom(...KEYS), fc.oneof(fc.string(), fc.integer())),
    ),
  );
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...KEYS), value, { maxKeys: 5 }), (file) => attempt(stringify(file))),
    RUNS,
  );
});
