/** A running identity service that the bench measures. Disposing of it stops its processes and removes its folder. */
export type IdentityContender = AsyncDisposable & {
  readonly name: string;
  readonly version: string;
  /** `http://HOST:PORT/v3`. */
  readonly endpoint: string;
  /** `project` and `domain` by name; the domain is the user's and the project's. */
  readonly admin: {
    readonly username: string;
    readonly password: string;
    readonly project: string;
    readonly domain: string;
  };
  /** The processes that serve, without descendants. */
  processes(): readonly number[];
};

/** The body of a login as the admin, for the admin's project. */
export const passwordLogin = ({ admin }: Pick<IdentityContender, "admin">): object => {
  const domain = { name: admin.domain };
  return {
    auth: {
      identity: {
        methods: ["password"],
        password: { user: { name: admin.username, domain, password: admin.password } },
      },
      scope: { project: { name: admin.project, domain } },
    },
  };
};

/** The body that asks for a token of the admin's project by another token. */
export const tokenLogin = ({ admin }: Pick<IdentityContender, "admin">, token: string): object => ({
  auth: {
    identity: { methods: ["token"], token: { id: token } },
    scope: { project: { name: admin.project, domain: { name: admin.domain } } },
  },
});

/** A fresh token. Throws where it is refused. */
export const issueToken = async ({ endpoint }: Pick<IdentityContender, "endpoint">, login: object): Promise<string> => {
  const answer = await fetch(`${endpoint}/auth/tokens`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(login),
  });
  const body = await answer.text();
  const token = answer.headers.get("x-subject-token");
  if (answer.status !== 201 || token === null)
    throw new Error(`POST ${endpoint}/auth/tokens: status ${answer.status}: ${body}`);
  return token;
};
