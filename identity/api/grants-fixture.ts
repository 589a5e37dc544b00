import { createTestInstallation, type TestInstallation } from "../test-service.ts";
import { type Answer, type CallOptions, createTestClient, listAt, textAt, tokenOf } from "../test-client.ts";

const PASSWORD = "another good password";

/** A running service of a test, with short ways to make what grants are about. */
export class GrantsFixture implements AsyncDisposable {
  readonly #installation: TestInstallation;
  readonly #client: ReturnType<typeof createTestClient<Answer["body"]>>;
  readonly admin: string;
  readonly #roleIds: ReadonlyMap<string, string>;

  private constructor(
    installation: TestInstallation,
    client: ReturnType<typeof createTestClient<Answer["body"]>>,
    admin: string,
    roleIds: ReadonlyMap<string, string>,
  ) {
    this.#installation = installation;
    this.#client = client;
    this.admin = admin;
    this.#roleIds = roleIds;
  }

  static async start(identity: Readonly<Record<string, unknown>> = {}): Promise<GrantsFixture> {
    await using starting = new AsyncDisposableStack();
    const installation = starting.use(createTestInstallation());
    const { port } = await installation.start({ file: { identity } });
    const client = createTestClient(() => `http://127.0.0.1:${port}`);
    const admin = await client.adminToken();
    const roles = listAt(await client.call("GET", "/v3/roles", { token: admin }), "roles");
    const named = new Map(roles.map(({ id, name }) => [String(name), String(id)]));
    starting.move();
    return new GrantsFixture(installation, client, admin, named);
  }

  /** As the administrator, unless a token is given. */
  call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    return this.#client.call(method, path, { token: this.admin, ...options });
  }

  /** Status alone. */
  async status(method: string, path: string, options: CallOptions = {}): Promise<number> {
    return (await this.call(method, path, options)).status;
  }

  /** The id of a role that is there from the beginning. */
  role(name: string): string {
    const id = this.#roleIds.get(name);
    if (id === undefined) throw new Error(`no role ${name}`);
    return id;
  }

  async #make(plural: string, singular: string, fields: object): Promise<string> {
    return textAt(await this.call("POST", `/v3/${plural}`, { body: { [singular]: fields } }), `${singular}.id`);
  }

  domain = (name: string): Promise<string> => this.#make("domains", "domain", { name });
  project = (name: string, parentId = "default", domainId = "default"): Promise<string> =>
    this.#make("projects", "project", { name, parent_id: parentId, domain_id: domainId });
  user = (name: string, domainId = "default"): Promise<string> =>
    this.#make("users", "user", { name, domain_id: domainId, password: PASSWORD });
  newRole = (name: string, domainId: string | null = null): Promise<string> =>
    this.#make("roles", "role", { name, domain_id: domainId });

  async group(name: string, members: readonly string[], domainId = "default"): Promise<string> {
    const id = await this.#make("groups", "group", { name, domain_id: domainId });
    for (const userId of members) await this.call("PUT", `/v3/groups/${id}/users/${userId}`);
    return id;
  }

  login(userId: string, scope?: object): Promise<Answer> {
    return this.#client.login({ id: userId, password: PASSWORD }, scope);
  }

  /** A token; empty where the login failed. */
  async token(userId: string, scope?: object): Promise<string> {
    return tokenOf(await this.login(userId, scope));
  }

  /** Beneath the service, which is told of nothing: what a directory's user leaves behind who goes there. */
  async sql(statement: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    return (await this.#installation.query(statement))[0];
  }

  /** What verifiers were told by the newest write. */
  async revocations(): Promise<Readonly<Record<string, unknown>>[]> {
    const row = await this.sql("SELECT revocations FROM changes ORDER BY id DESC LIMIT 1");
    const text = row?.["revocations"];
    const events = typeof text === "string" ? (JSON.parse(text) as Record<string, unknown>[]) : [];
    return events.map(({ issuedBeforeMs: _time, ...event }) => event);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#installation[Symbol.asyncDispose]();
  }
}
