import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type ClusterFile, LOCAL_NODE, resolveConfig } from "../common/config.ts";
import { RingsteadError } from "../common/errors.ts";
import { silentLog } from "../common/log.ts";
import { createMetrics } from "../common/metrics.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import type { TokenContext, TokenVerifier } from "../identity/client.ts";
import { createBackupContents } from "./backup/backup-contents.ts";
import { backupStoreOf } from "./backup-access.ts";
import { openBackupSecret } from "./backup/keys.ts";
import { blockPaths } from "./store/paths.ts";
import { createFakeObjectStore } from "./backup/fake-object-store.ts";
import { createFakeVolumeData, type FakeVolumeData } from "./fake-volume-data.ts";
import { createFakeVolumeHost, type FakeVolumeHost } from "./fake-volume-host.ts";
import { type BlockOptions, type BlockService, startBlock } from "./service.ts";
import type { VolumeHost } from "./volume-host.ts";

export const PROJECT = "11111111111111111111111111111111";
const CLUSTER_KEY = Buffer.alloc(32);
const STATUS_LIMIT_MS = 30_000;
const LOOK_FIRST_MS = 5;
const LOOK_LAST_MS = 50;
export const OTHER_PROJECT = "22222222222222222222222222222222";

const ROLES: Readonly<Record<string, readonly string[]>> = {
  admin: ["admin", "manager", "member", "reader"],
  member: ["member", "reader"],
  reader: ["reader"],
  service: ["service"],
};

/** A token of tests: `ROLE:PROJECT`. */
const contextOf = (token: string): TokenContext => {
  const [role = "", projectId] = token.split(":");
  const roles = Object.hasOwn(ROLES, role) ? ROLES[role] : undefined;
  if (roles === undefined || projectId === undefined)
    throw new RingsteadError("unauthorized", "The request you have made requires authentication.");
  return {
    userId: "33333333333333333333333333333333",
    userName: role,
    userDomainId: "default",
    projectId,
    projectName: "works",
    domainId: "default",
    roles,
    system: false,
    issuedAtMs: 0,
    expiresAtMs: Number.MAX_SAFE_INTEGER,
    methods: ["password"],
    auditId: "audit",
    parentAuditId: undefined,
    applicationCredentialId: undefined,
    accessRules: undefined,
    trustId: undefined,
    partyUserIds: [],
    partyDomainIds: [],
    accessTokenId: undefined,
    federation: undefined,
  };
};
const verifier: TokenVerifier = { verify: contextOf };

type Json = Readonly<Record<string, unknown>>;
export type Answer = { readonly status: number; readonly headers: Headers; readonly body: Json };

/** What an answer's body has at `path`, such as `volume.status`. */
export const at = ({ body }: Pick<Answer, "body">, path: string): unknown => {
  let value: unknown = body;
  for (const name of path.split("."))
    value = typeof value === "object" && value !== null ? (value as Json)[name] : undefined;
  return value;
};

export const listAt = (answer: Answer, path: string): readonly Json[] => {
  const value = at(answer, path);
  if (Array.isArray(value)) return value as Json[];
  throw new Error(`no list at ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
};

type CallOptions = { readonly body?: unknown; readonly token?: string; readonly version?: string };

/** The block service with a fake host, in a folder of its own. */
export class TestBlock implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "ringstead-block-"));
  readonly host: FakeVolumeHost;
  readonly data: FakeVolumeData;
  readonly objects = createFakeObjectStore();
  readonly verifier = verifier;
  readonly #file: ClusterFile;
  #service: BlockService | undefined;

  constructor(file: ClusterFile = {}, host: FakeVolumeHost = createFakeVolumeHost()) {
    this.#file = file;
    this.host = host;
    this.data = createFakeVolumeData(host);
    const keyFile = blockPaths(runtimePaths(this.folder).blockDir).backupKey;
    const config = { compression: "none", isEncrypted: false } as const;
    this.data.contents = createBackupContents((projectId) =>
      backupStoreOf({ objects: this.objects, secret: openBackupSecret(keyFile, CLUSTER_KEY), config }, projectId),
    );
  }

  static async start(file: ClusterFile = {}, host?: FakeVolumeHost): Promise<TestBlock> {
    const block = new TestBlock(file, host);
    await block.start();
    return block;
  }

  async start(
    change: Partial<Pick<BlockOptions, "giveUpMs" | "waitMs" | "table" | "objects" | "volumeData" | "clock">> & {
      readonly host?: VolumeHost;
    } = {},
  ): Promise<void> {
    await this.stop();
    const { host = this.host, ...options } = change;
    this.#service = await startBlock({
      config: resolveConfig(this.#file, this.folder, LOCAL_NODE, "host"),
      paths: runtimePaths(this.folder),
      clusterKey: CLUSTER_KEY,
      log: silentLog,
      metrics: createMetrics(),
      hosts: new Map([[LOCAL_NODE, host]]),
      volumeData: new Map([[LOCAL_NODE, this.data]]),
      objects: this.objects,
      port: 0,
      verifier,
      ...options,
    });
  }

  async stop(): Promise<void> {
    await this.#service?.[Symbol.asyncDispose]();
    this.#service = undefined;
  }

  /** `path` without `/v3`; as a member of PROJECT, in the latest version, unless told otherwise. */
  async call(method: string, path: string, options: CallOptions = {}): Promise<Answer> {
    const { body, token = `member:${PROJECT}`, version = "volume 3.71" } = options;
    const response = await fetch(`http://127.0.0.1:${this.#service?.port}/v3${path}`, {
      method,
      headers: {
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(token === "" ? {} : { "x-auth-token": token }),
        ...(version === "" ? {} : { "openstack-api-version": version }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      body: text.startsWith("{") ? (JSON.parse(text) as Json) : {},
    };
  }

  asAdmin(method: string, path: string, body?: unknown): Promise<Answer> {
    return this.call(method, path, { token: `admin:${PROJECT}`, ...(body === undefined ? {} : { body }) });
  }

  act(id: string, action: string, argument: unknown = null, token?: string): Promise<Answer> {
    const options = { body: { [action]: argument }, ...(token === undefined ? {} : { token }) };
    return this.call("POST", `/volumes/${id}/action`, options);
  }

  /** Creates a volume and resolves with its id once it is what `status` says. */
  async createVolume(fields: object = { size: 1 }, status = "available"): Promise<string> {
    const answer = await this.call("POST", "/volumes", { body: { volume: fields } });
    const id = at(answer, "volume.id");
    if (typeof id !== "string") throw new Error(`no volume: ${answer.status} ${JSON.stringify(answer.body)}`);
    await this.until(id, status);
    return id;
  }

  async statusOf(id: string): Promise<unknown> {
    const answer = await this.call("GET", `/volumes/${id}`);
    return answer.status === 404 ? "gone" : at(answer, "volume.status");
  }

  /** Resolves once the volume has the status; `gone`: once it is not there. */
  until(id: string, status: string): Promise<void> {
    return this.#untilStatus(`volume ${id}`, status, () => this.statusOf(id));
  }

  /** Looks often at first, and more seldom at what takes long. */
  async #untilStatus(what: string, status: string, look: () => Promise<unknown>): Promise<void> {
    const deadline = performance.now() + STATUS_LIMIT_MS;
    for (let pauseMs = LOOK_FIRST_MS; ; pauseMs = Math.min(LOOK_LAST_MS, pauseMs * 1.5)) {
      const last = await look();
      if (last === status) return;
      if (performance.now() > deadline) throw new Error(`${what} is ${String(last)}, not ${status}`);
      await sleep(pauseMs);
    }
  }

  /** Makes a backup and resolves with its id once it is what `status` says. */
  async createBackup(volumeId: string, fields: object = {}, status = "available"): Promise<string> {
    const answer = await this.call("POST", "/backups", { body: { backup: { volume_id: volumeId, ...fields } } });
    const id = at(answer, "backup.id");
    if (typeof id !== "string") throw new Error(`no backup: ${answer.status} ${JSON.stringify(answer.body)}`);
    await this.untilShown(`/backups/${id}`, "backup", status);
    return id;
  }

  /** Takes a snapshot and resolves with its id once it is what `status` says. */
  async createSnapshot(volumeId: string, fields: object = {}, status = "available"): Promise<string> {
    const answer = await this.call("POST", "/snapshots", { body: { snapshot: { volume_id: volumeId, ...fields } } });
    const id = at(answer, "snapshot.id");
    if (typeof id !== "string") throw new Error(`no snapshot: ${answer.status} ${JSON.stringify(answer.body)}`);
    await this.untilShown(`/snapshots/${id}`, "snapshot", status);
    return id;
  }

  /** Resolves once what `path` shows as `name` has the status; `gone`: once it is not there. */
  untilShown(path: string, name: string, status: string): Promise<void> {
    return this.#untilStatus(path, status, async () => {
      const answer = await this.call("GET", path);
      return answer.status === 404 ? "gone" : at(answer, `${name}.status`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
