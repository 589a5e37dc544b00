/** Something that was done, or tried. */
export type Deed = {
  readonly id: string;
  readonly atMs: number;
  /** `create`, `update`, `delete`, `disable`, `authenticate`, `revoke`. */
  readonly action: string;
  readonly outcome: "success" | "failure";
  /** Keystone's resource types: `user`, `project`, … */
  readonly resource: string;
  readonly resourceId: string;
  readonly reason?: string;
  readonly details?: Readonly<Record<string, unknown>>;
  readonly initiator:
    | {
        readonly userId: string | undefined;
        readonly projectId: string | undefined;
        readonly remoteAddress: string | undefined;
        readonly requestId: string | undefined;
      }
    | undefined;
};

const EVENT_TYPE = "http://schemas.dmtf.org/cloud/audit/1.0/event";
const PAST: Readonly<Record<string, string>> = {
  create: "created",
  update: "updated",
  delete: "deleted",
  disable: "disabled",
  revoke: "revoked",
};

/** `identity.user.created`; a login is `identity.authenticate`. */
export const notificationType = ({ action, resource }: Pick<Deed, "action" | "resource">): string =>
  action === "authenticate" ? "identity.authenticate" : `identity.${resource}.${PAST[action] ?? action}`;

/**
 * A deed in the shape of DMTF's Cloud Auditing Data Federation (DSP0262 1.0), with the types that Keystone uses. `observer`: the node that saw it.
 */
export const auditEvent = (deed: Deed, observer: string): object => {
  const { initiator } = deed;
  return {
    typeURI: EVENT_TYPE,
    id: deed.id,
    eventType: "activity",
    eventTime: new Date(deed.atMs).toISOString().replace("Z", "+0000"),
    action: deed.action === "authenticate" ? "authenticate" : `${PAST[deed.action] ?? deed.action}.${deed.resource}`,
    outcome: deed.outcome,
    ...(deed.reason === undefined ? {} : { reason: { reasonType: "identity", reasonCode: deed.reason } }),
    initiator: {
      typeURI: "service/security/account/user",
      id: initiator?.userId ?? observer,
      ...(initiator?.projectId === undefined ? {} : { project_id: initiator.projectId }),
      ...(initiator?.requestId === undefined ? {} : { request_id: initiator.requestId }),
      ...(initiator?.remoteAddress === undefined ? {} : { host: { address: initiator.remoteAddress } }),
    },
    target: { typeURI: `data/security/${deed.resource}`, id: deed.resourceId },
    observer: { typeURI: "service/security", id: observer },
    ...(deed.details === undefined
      ? {}
      : { attachments: [{ typeURI: "mime:application/json", content: deed.details, name: "details" }] }),
  };
};
