import { type Answer, at, createTestClient, textAt, tokenOf } from "./test-client.ts";
import { createTestInstallation, type TestInstallation } from "./test-service.ts";

export const USER_PASSWORD = "a long password";

/** A service that runs, and what its administrator does in tests. */
export type TestAdministrator = AsyncDisposable &
  ReturnType<typeof createTestClient<Answer["body"]>> & {
    readonly installation: TestInstallation;
    readonly base: string;
    /** `path` without `/v3`. */
    readonly asAdmin: (method: string, path: string, body?: unknown) => Promise<Answer>;
    /** Makes a thing: `create("user", { name })`. Answers its id. */
    readonly create: (kind: string, fields: object) => Promise<string>;
    /** Gives a role by its name: `grant("/projects/P/users/U", "member")`. */
    readonly grant: (path: string, role: string) => Promise<void>;
    /** A user with `role` on `target` (`/domains/ID`, `/projects/ID`), and a token for that. */
    readonly bearer: (target: string, role: string) => Promise<{ readonly id: string; readonly token: string }>;
  };

/** `file`: keys of cluster.toml. */
export const startTestAdministrator = async (
  file: NonNullable<Parameters<TestInstallation["start"]>[0]>["file"] = {},
): Promise<TestAdministrator> => {
  const installation = createTestInstallation();
  const base = `http://127.0.0.1:${(await installation.start({ file })).port}`;
  const client = createTestClient(() => base);
  const token = await client.adminToken();
  const asAdmin: TestAdministrator["asAdmin"] = (method, path, body) =>
    client.call(method, `/v3${path}`, { token, ...(body === undefined ? {} : { body }) });
  const create: TestAdministrator["create"] = async (kind, fields) =>
    textAt(await asAdmin("POST", `/${kind.replace(/y$/, "ie")}s`, { [kind]: fields }), `${kind}.id`);
  const grant: TestAdministrator["grant"] = async (path, role) => {
    const roleId = textAt(await asAdmin("GET", `/roles?name=${role}`), "roles.0.id");
    const answer = await asAdmin("PUT", `${path}/roles/${roleId}`);
    if (answer.status !== 204) throw new Error(`${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
  };
  let users = 0;
  const bearer: TestAdministrator["bearer"] = async (target, role) => {
    const [, kind = "", targetId = ""] = target.split("/");
    const place = await asAdmin("GET", target);
    const home = kind === "domains" ? targetId : (at(place, "project.domain_id") ?? targetId);
    users += 1;
    const id = await create("user", { name: `${role} ${users}`, domain_id: home, password: USER_PASSWORD });
    await grant(`${target}/users/${id}`, role);
    const scope = { [kind.slice(0, -1)]: { id: targetId } };
    const answer = await client.login({ id, password: USER_PASSWORD }, scope);
    if (answer.status !== 201) throw new Error(`login: ${answer.status} ${JSON.stringify(answer.body)}`);
    return { id, token: tokenOf(answer) };
  };
  return {
    ...client,
    installation,
    base,
    asAdmin,
    create,
    grant,
    bearer,
    [Symbol.asyncDispose]: () => installation[Symbol.asyncDispose](),
  };
};
