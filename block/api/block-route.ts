import { Type } from "typebox";
import type { Clock } from "../../common/clock.ts";
import { RingsteadError } from "../../common/errors.ts";
import type { HttpRequest, HttpResponse, RequestSchema, Route, TypedRoute } from "../../common/http/route.ts";
import type { Log } from "../../common/log.ts";
import type { PolicyCredentials, PolicyEngine } from "../../common/policy/policy-engine.ts";
import { isAllowedByRules, type TokenContext, type TokenVerifier } from "../../identity/client.ts";
import type { Backups } from "../backup-service.ts";
import type { BlockConfig } from "../config.ts";
import { blockError, notFound } from "../core/block-error.ts";
import { formatMicroversion, type Microversion, negotiateMicroversion } from "../core/microversion.ts";
import type { TaskRunner } from "../daemons/task-runner.ts";
import type { Hosts } from "../hosts.ts";
import type { OperatorExports } from "../operator-exports.ts";
import type { BlockDatabase } from "../store/schema.ts";
import { findSnapshot, type Snapshot } from "../store/snapshots.ts";
import { findVolume, type Volume } from "../store/volumes.ts";

/** What handlers work with. */
export type BlockContext = {
  readonly config: BlockConfig;
  readonly clock: Clock;
  readonly log: Log;
  /** For reading: waits for no transaction. */
  readonly database: BlockDatabase;
  /** For transactions. */
  readonly writer: BlockDatabase;
  readonly verifier: TokenVerifier;
  readonly policy: PolicyEngine;
  readonly hosts: Hosts;
  readonly operatorExports: OperatorExports;
  readonly tasks: TaskRunner;
  /** Undefined where there is no object service to keep backups in. */
  readonly backups: Backups | undefined;
  /** How long a client waits for a host. */
  readonly waitMs: number;
  /** Names under which connectors of this machine call themselves. */
  readonly localHosts: ReadonlySet<string>;
  /** `http://HOST:PORT`, for a caller without a Host header. */
  readonly publicEndpoint: string;
};

export type BlockRoute = Route<BlockContext>;

/** Who calls, and in which version he is answered. */
export type Caller = {
  readonly token: TokenContext;
  readonly credentials: PolicyCredentials;
  readonly version: Microversion;
  /** Things of all projects are his. */
  readonly isAdmin: boolean;
};

type GuardedRoute<Request extends RequestSchema> = Omit<TypedRoute<BlockContext, Request>, "handler" | "path"> & {
  /** Without `/v3`: served under that and under `/v3/{project_id}`. */
  readonly path: string;
  /** Microversions that have it. */
  readonly since?: Microversion;
  readonly until?: Microversion;
  /** The policy's name where the target is the caller's own project; others ask `enforce` once they know the thing. */
  readonly operation?: string;
  handler(request: HttpRequest<Request>, context: BlockContext, caller: Caller): Promise<HttpResponse> | HttpResponse;
};

const ANYTHING = Type.Object({});

/** What policies see of a token; oslo.policy's names. */
const policyCredentials = (token: TokenContext): PolicyCredentials => ({
  user_id: token.userId,
  user_domain_id: token.userDomainId,
  project_id: token.projectId,
  project_domain_id: token.projectId === undefined ? undefined : token.domainId,
  domain_id: token.projectId === undefined ? token.domainId : undefined,
  system_scope: token.system ? "all" : undefined,
  is_admin_project: "True",
  roles: token.roles,
});

/** Throws `forbidden` unless the policy lets the caller do it to a thing of `projectId`. */
export const enforce = (
  { policy }: BlockContext,
  { credentials }: Caller,
  operation: string,
  projectId: string | undefined,
): void => {
  if (policy.allows(operation, credentials, { project_id: projectId ?? null })) return;
  throw blockError("forbidden", `Policy doesn't allow ${operation} to be performed.`, { operation });
};

export const mayDo = (
  { policy }: BlockContext,
  { credentials }: Caller,
  operation: string,
  projectId: string | undefined,
): boolean => policy.allows(operation, credentials, { project_id: projectId ?? null });

/** The caller's project. Throws `bad-request` for a token without one. */
export const projectOf = ({ token }: Caller): string => {
  if (token.projectId === undefined) throw blockError("bad-request", "The token is not for a project.");
  return token.projectId;
};

const callerOf = async (
  request: Pick<HttpRequest, "header" | "method" | "path">,
  context: BlockContext,
  version: Microversion,
): Promise<Caller> => {
  const text = request.header("x-auth-token");
  if (text === undefined) throw blockError("unauthorized", "The request you have made requires authentication.");
  const token = await context.verifier.verify(text);
  if (token.accessRules !== undefined) {
    const allowed = ["block-storage", "volumev3", "volume"].some((service) =>
      isAllowedByRules(token.accessRules ?? [], service, request.method, request.path),
    );
    if (!allowed) throw blockError("unauthorized", "The access rules of the application credential do not allow this.");
  }
  const credentials = policyCredentials(token);
  const isAdmin = context.policy.allows("context_is_admin", credentials, {});
  return { token, credentials, version, isAdmin };
};

const checkProject = (params: unknown, { token }: Caller): void => {
  const given = typeof params === "object" && params !== null && "project_id" in params ? params.project_id : undefined;
  if (given === undefined || given === token.projectId) return;
  throw blockError("bad-request", "Malformed request url");
};

/** An operation for bearers of a token, at both of its paths. */
export const blockRoute = <const Request extends RequestSchema>(route: GuardedRoute<Request>): BlockRoute[] => {
  const { method, request: schema, since = 0, until = Number.POSITIVE_INFINITY, operation } = route;
  const served = (path: string): TypedRoute<BlockContext, Request> => ({
    method,
    path,
    // A part without a schema is not handed on; every operation looks at the project of the path, and lists at the query.
    request: { params: ANYTHING, query: ANYTHING, ...schema },
    handler: async (request: HttpRequest<Request>, context) => {
      const version = negotiateMicroversion(request.header("openstack-api-version"));
      const apiVersion = formatMicroversion(version);
      try {
        const caller = await callerOf(request, context, version);
        checkProject(request.params, caller);
        if (version < since || version > until)
          throw blockError("not-found", `API version ${apiVersion} is not supported on this method.`);
        if (operation !== undefined) enforce(context, caller, operation, caller.token.projectId);
        const response = await route.handler(request, context, caller);
        return { ...response, headers: { ...response.headers, "openstack-api-version": `volume ${apiVersion}` } };
      } catch (thrown) {
        if (!(thrown instanceof RingsteadError)) throw thrown;
        throw new RingsteadError(thrown.code, thrown.message, { ...thrown.fields, apiVersion });
      }
    },
  });
  return [served(`/v3${route.path}`), served(`/v3/:project_id${route.path}`)] satisfies readonly Route<BlockContext>[];
};

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

export const isUuid = (text: string): boolean => UUID.test(text);

/** The volume, if the caller may know that it is there. Throws `not-found`. */
export const visibleVolume = async (database: BlockDatabase, caller: Caller, id: string): Promise<Volume> => {
  const volume = isUuid(id) ? await findVolume(database, id) : undefined;
  if (volume === undefined || (!caller.isAdmin && volume.project_id !== caller.token.projectId))
    throw notFound("Volume", id);
  return volume;
};

/** The snapshot, if the caller may know that it is there. Throws `not-found`. */
export const visibleSnapshot = async (database: BlockDatabase, caller: Caller, id: string): Promise<Snapshot> => {
  const snapshot = isUuid(id) ? await findSnapshot(database, id) : undefined;
  if (snapshot === undefined || (!caller.isAdmin && snapshot.project_id !== caller.token.projectId))
    throw notFound("Snapshot", id);
  return snapshot;
};

/** The base of links in an answer: the address that the client used, with the project where it named one. */
export const baseUrl = (
  request: Pick<HttpRequest, "origin" | "path">,
  context: BlockContext,
  caller: Caller,
): string => {
  const origin = request.origin ?? context.publicEndpoint;
  const { projectId } = caller.token;
  return projectId !== undefined && request.path.startsWith(`/v3/${projectId}/`)
    ? `${origin}/v3/${projectId}`
    : `${origin}/v3`;
};

/** As Cinder writes times: UTC without saying so. */
export const timeText = (ms: number | null): string | null =>
  ms === null ? null : new Date(ms).toISOString().replace("Z", "000");

/** A truth value as clients write it. Undefined: it is none. */
export const truthOf = (value: unknown): boolean | undefined => {
  if (typeof value === "boolean") return value;
  const text = typeof value === "string" || typeof value === "number" ? String(value).toLowerCase() : "";
  if (["1", "t", "true", "on", "y", "yes"].includes(text)) return true;
  return ["0", "f", "false", "off", "n", "no"].includes(text) ? false : undefined;
};

/** The same where it has to be one, for messages in `field`. Throws `bad-request`. */
export const truthIn = (value: unknown, field: string): boolean => {
  const found = truthOf(value);
  if (found === undefined)
    throw blockError("bad-request", `Invalid input for field/attribute ${field}: neither true nor false.`);
  return found;
};
