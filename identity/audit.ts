import { randomUUID } from "node:crypto";
import type { Bus } from "../common/bus/bus.ts";
import type { Clock } from "../common/clock.ts";
import { messageOf, RingsteadError } from "../common/errors.ts";
import type { Log } from "../common/log.ts";
import { auditEvent, type Deed, notificationType } from "./core/audit-event.ts";
import { currentInitiator, type Initiator } from "./initiator.ts";
import type { Changes } from "./store/changes.ts";

/** The bus topic of what happens to identities. */
const IDENTITY_TOPIC = "identity.notifications";

export type Audit = {
  /** A login that was refused, or another proof of who one is. `user` as the client named it, never more of what it sent; `error`: why. */
  loginFailed(failure: { readonly user: string; readonly error: unknown; readonly remoteAddress: string }): void;
};

export type AuditOptions = {
  readonly bus: Bus;
  readonly changes: Changes;
  readonly clock: Clock;
  /** The node that sees it all. */
  readonly observer: string;
};

/** What stands in the log, where the answer says less. */
const reasonOf = (error: unknown): string => {
  const reason = error instanceof RingsteadError ? error.fields["reason"] : undefined;
  return typeof reason === "string" ? reason : messageOf(error);
};

/** Publishes every change, once it is durable, and every login that failed. */
export const createAudit = ({ bus, changes, clock, observer }: AuditOptions): Audit => {
  const publish = (deed: Omit<Deed, "id" | "atMs" | "initiator">, initiator: Initiator | undefined): void => {
    const whole: Deed = { ...deed, id: randomUUID(), atMs: clock.nowMs(), initiator };
    bus.publish({ topic: IDENTITY_TOPIC, type: notificationType(whole), payload: auditEvent(whole, observer) });
  };
  changes.onCommit(({ notifications }) => {
    for (const { action, resource, id, details } of notifications) {
      const more = details === undefined ? {} : { details };
      publish({ action, outcome: "success", resource, resourceId: id, ...more }, currentInitiator());
    }
  });
  return {
    loginFailed: ({ user, error, remoteAddress }) =>
      publish(
        {
          action: "authenticate",
          outcome: "failure",
          resource: "account/user",
          resourceId: user,
          reason: reasonOf(error),
        },
        { userId: user, projectId: undefined, remoteAddress, requestId: undefined },
      ),
  };
};

/** Writes what is published into `log`, a line for each event. */
export const logAudit = (bus: Bus, log: Log): void => {
  bus.subscribe(IDENTITY_TOPIC, ({ type, payload }) => log.info(type, { event: payload }));
};
