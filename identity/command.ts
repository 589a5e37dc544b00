import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { type Static, type TSchema, Type } from "typebox";
import { Value } from "typebox/value";
import { LOCAL_NODE, loadConfig } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { askSocket } from "./client.ts";
import { examineIdentity } from "./doctor.ts";
import { tryMapping } from "./mapping-test.ts";

const HELP = `ringstead identity COMMAND [--data DIR]

  rotate-keys      new keys for tokens and for secrets at rest, while running; tokens that live stay good
  rotate-saml-key  [--now] a new key for assertions: in the metadata at once, signing once other clouds had the time to read it there
                   (key_announcement_seconds); --now: signing at once, the old ones gone, as when one was stolen
  mapping-test     --rules FILE --input FILE: who a federated login would be; FILE has claims as JSON, or lines NAME: value
  doctor           looks at database, keys and rights; exit 1 where something is wrong
`;

const rotation = Type.Object({ signingKey: Type.String(), secrets: Type.Integer() });

const samlRotation = Type.Object({ fingerprint: Type.String(), signsAtMs: Type.Number() });

/** What the running service answers to a POST, if it is what `schema` says. Throws RingsteadError `not-running`. */
const askRunning = async <Schema extends TSchema>(
  dataDir: string,
  path: string,
  schema: Schema,
  body: object = {},
): Promise<Static<Schema>> => {
  const socketPath = runtimePaths(dataDir).socket("control");
  if (!existsSync(socketPath))
    throw new RingsteadError("not-running", `nothing runs in ${dataDir}: ringstead up first`);
  const { status, text } = await askSocket(socketPath, "POST", path, Buffer.from(JSON.stringify(body)));
  const answer: unknown = status === 200 ? JSON.parse(text) : undefined;
  if (!Value.Check(schema, answer)) {
    throw new RingsteadError("not-running", `the identity service answered ${status}: ${text}`);
  }
  return answer;
};

const rotateKeys = async (dataDir: string): Promise<number> => {
  const { signingKey, secrets } = await askRunning(dataDir, "/internal/rotate-keys", rotation);
  process.stdout.write(`key ${signingKey} signs tokens in 15 seconds; ${secrets} secrets were sealed with a new key\n`);
  return 0;
};

const rotateSamlKey = async (dataDir: string, atOnce: boolean): Promise<number> => {
  const answer = await askRunning(dataDir, "/internal/rotate-saml-key", samlRotation, { atOnce });
  const signsAt = new Date(answer.signsAtMs).toISOString();
  process.stdout.write(
    `the key of certificate ${answer.fingerprint} is in /v3/OS-FEDERATION/saml2/metadata and signs from ${signsAt}\n`,
  );
  return 0;
};

const doctor = async (dataDir: string, node: string): Promise<number> => {
  const findings = await examineIdentity(runtimePaths(dataDir), loadConfig(dataDir, node));
  for (const { check, problem, remedy } of findings) {
    process.stdout.write(
      problem === undefined ? `ok       ${check}\n` : `PROBLEM  ${check}: ${problem}\n         ${remedy}\n`,
    );
  }
  return findings.some(({ problem }) => problem !== undefined) ? 1 : 0;
};

/** `ringstead identity …`. `defaultDataDir`: where an installation is without `--data`. */
export const identityCommand = async (argv: readonly string[], defaultDataDir: string): Promise<number> => {
  const { values, positionals } = parseArgs({
    args: [...argv],
    options: {
      data: { type: "string" },
      node: { type: "string" },
      rules: { type: "string" },
      input: { type: "string" },
      now: { type: "boolean" },
    },
    allowPositionals: true,
  });
  const dataDir = runtimePaths(values.data ?? defaultDataDir).dataDir;
  switch (positionals[0]) {
    case "rotate-keys":
      return rotateKeys(dataDir);
    case "rotate-saml-key":
      return rotateSamlKey(dataDir, values.now === true);
    case "doctor":
      return doctor(dataDir, values.node ?? LOCAL_NODE);
    case "mapping-test": {
      if (values.rules === undefined || values.input === undefined) {
        throw new RingsteadError("usage", "ringstead identity mapping-test takes --rules FILE and --input FILE");
      }
      const outcome = tryMapping(values.rules, values.input);
      process.stdout.write(`${JSON.stringify(outcome, undefined, 2)}\n`);
      return outcome.kind === "mapped" ? 0 : 1;
    }
    case undefined:
    case "help":
      process.stdout.write(HELP);
      return 0;
    default:
      throw new RingsteadError(
        "usage",
        `there is no command "identity ${positionals[0] ?? ""}" (see: ringstead identity help)`,
      );
  }
};
