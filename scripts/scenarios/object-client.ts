/** What ready.json says of v1 auth. */
export type Credentials = { readonly url: string; readonly user: string; readonly key: string };

export type ObjectRequest = {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array<ArrayBuffer>;
};

/** An answer that was read to its end, and how long that took. */
export class ObjectAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Buffer;
  readonly ms: number;

  constructor(response: Response, bytes: Buffer, ms: number) {
    this.status = response.status;
    this.headers = response.headers;
    this.bytes = bytes;
    this.ms = ms;
  }

  get text(): string {
    return this.bytes.toString();
  }
}

/** Speaks the Swift API in one account with the token of one login. */
export class ObjectClient {
  /** Of the account, without a slash at its end. */
  readonly url: string;
  readonly token: string;

  constructor(url: string, token: string) {
    this.url = url;
    this.token = token;
  }

  /** Logs in by v1 auth. */
  static async login({ url, user, key }: Credentials): Promise<ObjectClient> {
    const response = await fetch(url, { headers: { "x-auth-user": user, "x-auth-key": key } });
    if (response.status !== 200) throw new Error(`a login was answered ${response.status}`);
    const [accountUrl, token] = [response.headers.get("x-storage-url"), response.headers.get("x-auth-token")];
    if (accountUrl === null || token === null) throw new Error("a login gave no URL or no token");
    return new ObjectClient(accountUrl, token);
  }

  /** The account's name in the URL. */
  get account(): string {
    return new URL(this.url).pathname.split("/").at(-1) ?? "";
  }

  /** `path` is behind the account's URL. Rejects where the connection breaks. */
  async request(method: string, path: string, { headers = {}, body }: ObjectRequest = {}): Promise<ObjectAnswer> {
    const startMs = performance.now();
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { "x-auth-token": this.token, ...headers },
      ...(body === undefined ? {} : { body }),
    });
    const bytes = Buffer.from(await response.arrayBuffer());
    return new ObjectAnswer(response, bytes, performance.now() - startMs);
  }
}
