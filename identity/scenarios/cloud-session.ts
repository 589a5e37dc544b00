import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createTestClient, tokenOf } from "../test-client.ts";

type AdminReady = {
  readonly endpoints: { readonly identity: string; readonly object: string };
  readonly admin: { readonly username: string; readonly password: string; readonly project: string };
};

const DEFAULT = { id: "default" };

/** An administrator of the installation in `folder`, over its public ports. */
export const adminSession = async (folder: string) => {
  const ready = JSON.parse(readFileSync(join(folder, "ready.json"), "utf8")) as AdminReady;
  const client = createTestClient(() => ready.endpoints.identity.replace(/\/v3$/, ""));
  const { username, password, project } = ready.admin;
  const scope = { project: { name: project, domain: DEFAULT } };
  const token = tokenOf(await client.login({ name: username, domain: DEFAULT, password }, scope));
  return { ...client, token, objectUrl: ready.endpoints.object };
};
