import { type Selectable } from "kysely";
import type { HttpRequest } from "../../common/http/route.ts";
import { notFound } from "../core/block-error.ts";
import type { BlockDatabase, MessagesTable } from "../store/schema.ts";
import {
  baseUrl,
  type BlockContext,
  type BlockRoute,
  blockRoute,
  type Caller,
  enforce,
  timeText,
} from "./block-route.ts";
import { listRows, type ListSource } from "./list-rows.ts";
import { uuidParams } from "./volume-fields.ts";

const SINCE = 3;
const params = uuidParams("message_id");

type Message = Selectable<MessagesTable>;

const MESSAGES: ListSource = {
  table: "messages",
  name: "messages",
  sortColumns: {
    id: { column: "id", kind: "text" },
    event_id: { column: "event_id", kind: "text" },
    resource_type: { column: "resource_type", kind: "text" },
    resource_uuid: { column: "resource_uuid", kind: "text" },
    message_level: { column: "message_level", kind: "text" },
    created_at: { column: "created_at_ms", kind: "number" },
    guaranteed_until: { column: "guaranteed_until_ms", kind: "number" },
  },
  filters: {
    event_id: "event_id",
    resource_type: "resource_type",
    resource_uuid: "resource_uuid",
    message_level: "message_level",
    request_id: "request_id",
  },
};

const shown = (request: HttpRequest, context: BlockContext, caller: Caller, message: Message): object => {
  const base = baseUrl(request, context, caller);
  return {
    id: message.id,
    event_id: message.event_id,
    user_message: message.user_message,
    message_level: message.message_level,
    created_at: timeText(message.created_at_ms),
    guaranteed_until: timeText(message.guaranteed_until_ms),
    // Clients take it for a text; what failed in a task failed in no request.
    request_id: message.request_id ?? "",
    resource_type: message.resource_type,
    resource_uuid: message.resource_uuid,
    links: [
      { rel: "self", href: `${base}/messages/${message.id}` },
      { rel: "bookmark", href: `${base.replace("/v3", "")}/messages/${message.id}` },
    ],
  };
};

const visibleMessage = async (database: BlockDatabase, caller: Caller, id: string): Promise<Message> => {
  const message = await database.selectFrom("messages").selectAll().where("id", "=", id).executeTakeFirst();
  if (message === undefined || (!caller.isAdmin && message.project_id !== caller.token.projectId))
    throw notFound("Message", id);
  return message;
};

/** What users are told of failures that no answer could tell them. */
export const MESSAGE_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/messages",
    since: SINCE,
    request: {},
    operation: "message:get_all",
    handler: async (request, context, caller) => {
      const { rows, more } = await listRows<Message>(request, context, caller, MESSAGES);
      return { status: 200, body: { messages: rows.map((one) => shown(request, context, caller, one)), ...more } };
    },
  }),
  ...blockRoute({
    method: "GET",
    path: "/messages/:message_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const message = await visibleMessage(context.database, caller, request.params.message_id);
      enforce(context, caller, "message:get", message.project_id);
      return { status: 200, body: { message: shown(request, context, caller, message) } };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/messages/:message_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const message = await visibleMessage(context.database, caller, request.params.message_id);
      enforce(context, caller, "message:delete", message.project_id);
      await context.writer.deleteFrom("messages").where("id", "=", message.id).execute();
      return { status: 204 };
    },
  }),
];
