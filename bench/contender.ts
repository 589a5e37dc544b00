/** Where a load goes and what it may do there. */
export type Session = {
  readonly host: string;
  readonly port: number;
  readonly accountPath: string;
  readonly token: string;
  /** How it was logged in, on the same host and port. */
  readonly auth: { readonly path: string; readonly user: string; readonly key: string };
};

/** A running object store that the bench measures. Disposing of it stops its processes and removes its folder. */
export type Contender = AsyncDisposable & {
  readonly name: string;
  readonly version: string;
  /** A fresh token: tokens may live shorter than a comparison lasts. */
  login(): Promise<Session>;
  /** The processes that serve, without descendants. */
  processes(): readonly number[];
};

/** Swift's v1 login. Throws where it is refused. */
export const loginV1 = async (url: string, user: string, key: string): Promise<Session> => {
  const answer = await fetch(url, { headers: { "X-Auth-User": user, "X-Auth-Key": key } });
  await answer.arrayBuffer();
  const storageUrl = answer.headers.get("x-storage-url");
  const token = answer.headers.get("x-auth-token");
  if (!answer.ok || storageUrl === null || token === null) throw new Error(`login at ${url}: status ${answer.status}`);
  const { hostname, port, pathname } = new URL(storageUrl);
  const auth = { path: new URL(url).pathname, user, key };
  return { host: hostname, port: Number(port), accountPath: pathname, token, auth };
};

/** Makes container `name`. Throws where it is refused. */
export const makeContainer = async (session: Session, name: string): Promise<void> => {
  const url = `http://${session.host}:${session.port}${session.accountPath}/${name}`;
  const answer = await fetch(url, { method: "PUT", headers: { "X-Auth-Token": session.token } });
  await answer.arrayBuffer();
  if (!answer.ok) throw new Error(`PUT ${url}: status ${answer.status}`);
};
