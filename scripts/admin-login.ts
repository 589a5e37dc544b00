import { readFileSync } from "node:fs";
import { RingsteadError } from "../common/errors.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import type { ReadyFile } from "./ready-file.ts";

const ANSWER_TIMEOUT_MS = 30_000;

/** What runs in DIR, as its ready.json says. Errors: "not-running". */
export const readReady = (dataDir: string): ReadyFile => {
  const path = runtimePaths(dataDir).readyJson;
  try {
    return JSON.parse(readFileSync(path, "utf8")) as ReadyFile;
  } catch {
    throw new RingsteadError("not-running", `nothing runs there (${path} is absent): ./scripts/start --detach first`);
  }
};

export type AdminLogin = {
  readonly token: string;
  /** The administrator's account; undefined where no object service runs. */
  readonly objectUrl: string | undefined;
};

/** Logs in as the installation's administrator, with the password of ready.json. Errors: "identity-refused". */
export const logInAsAdmin = async ({ endpoints, admin }: ReadyFile): Promise<AdminLogin> => {
  const domain = { name: admin.domain };
  const user = { name: admin.username, domain, password: admin.password };
  const auth = {
    identity: { methods: ["password"], password: { user } },
    scope: { project: { name: admin.project, domain } },
  };
  const response = await fetch(`${String(endpoints.identity)}/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ auth }),
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  });
  const token = response.headers.get("x-subject-token");
  if (response.status !== 201 || token === null)
    throw new RingsteadError("identity-refused", `the login answered ${response.status}`);
  const answer = (await response.json()) as {
    readonly token: { readonly catalog: { type: string; endpoints: { interface: string; url: string }[] }[] };
  };
  const store = answer.token.catalog.find(({ type }) => type === "object-store");
  return { token, objectUrl: store?.endpoints.find((endpoint) => endpoint.interface === "public")?.url };
};
