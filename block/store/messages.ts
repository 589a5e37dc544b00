import { randomUUID } from "node:crypto";
import { type FailedAction, type FailureDetail, messageTexts } from "../core/user-messages.ts";
import type { BlockTransaction } from "./schema.ts";

/** Cinder's message_ttl: 30 days. */
const MESSAGE_TTL_MS = 30 * 24 * 3_600_000;

export type NewMessage = {
  readonly projectId: string;
  readonly resourceType: "VOLUME" | "VOLUME_SNAPSHOT" | "VOLUME_GROUP" | "VOLUME_BACKUP";
  readonly resourceId: string;
  readonly action: FailedAction;
  readonly detail: FailureDetail;
  readonly requestId?: string;
};

/** Tells a project's members why something failed; with what they were told too long ago removed. */
export const addMessage = async (transaction: BlockTransaction, message: NewMessage, nowMs: number): Promise<void> => {
  await transaction.deleteFrom("messages").where("guaranteed_until_ms", "<", nowMs).execute();
  const { eventId, text } = messageTexts(message.resourceType, message.action, message.detail);
  await transaction
    .insertInto("messages")
    .values({
      id: randomUUID(),
      project_id: message.projectId,
      resource_type: message.resourceType,
      resource_uuid: message.resourceId,
      event_id: eventId,
      message_level: "ERROR",
      request_id: message.requestId ?? null,
      user_message: text,
      created_at_ms: nowMs,
      guaranteed_until_ms: nowMs + MESSAGE_TTL_MS,
    })
    .execute();
};
