import { Type } from "typebox";
import { withTransaction } from "../../common/sql/transaction.ts";
import { blockError } from "../core/block-error.ts";
import { projectDefaultType, setProjectDefaultType } from "../store/default-types.ts";
import { findType } from "../store/volume-types.ts";
import { type BlockRoute, blockRoute, enforce } from "./block-route.ts";

const SINCE = 62;
const POLICY = "volume_extension:default";
const params = Type.Object({ type_project_id: Type.String({ minLength: 1, maxLength: 255 }) });

const shown = (projectId: string, typeId: string): object => ({
  default_type: { project_id: projectId, volume_type_id: typeId },
});

/** The types of projects' volumes that name none. */
export const DEFAULT_TYPE_ROUTES: readonly BlockRoute[] = [
  ...blockRoute({
    method: "GET",
    path: "/default-types",
    since: SINCE,
    request: {},
    operation: `${POLICY}_get_all`,
    handler: async (_request, { database }) => ({
      status: 200,
      body: { default_types: await database.selectFrom("default_types").selectAll().orderBy("project_id").execute() },
    }),
  }),
  ...blockRoute({
    method: "GET",
    path: "/default-types/:type_project_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const { type_project_id: id } = request.params;
      enforce(context, caller, `${POLICY}_get`, id);
      const typeId = await projectDefaultType(context.database, id);
      if (typeId === undefined) throw blockError("not-found", `Default type for project ${id} could not be found.`);
      return { status: 200, body: shown(id, typeId) };
    },
  }),
  ...blockRoute({
    method: "PUT",
    path: "/default-types/:type_project_id",
    since: SINCE,
    request: {
      params,
      body: Type.Object({
        default_type: Type.Object({ volume_type: Type.String({ minLength: 1, maxLength: 255 }) }),
      }),
    },
    handler: async (request, context, caller) => {
      const { type_project_id: id } = request.params;
      enforce(context, caller, `${POLICY}_set_or_update`, id);
      const wanted = request.body.default_type.volume_type;
      const typeId = await withTransaction(context.writer, async (transaction) => {
        // One that the project may not use would fail each of its volumes.
        const type = await findType(transaction, wanted, id);
        if (type === undefined) throw blockError("bad-request", `Volume type with name ${wanted} could not be found.`);
        await setProjectDefaultType(transaction, id, type.id);
        return type.id;
      });
      return { status: 200, body: shown(id, typeId) };
    },
  }),
  ...blockRoute({
    method: "DELETE",
    path: "/default-types/:type_project_id",
    since: SINCE,
    request: { params },
    handler: async (request, context, caller) => {
      const { type_project_id: id } = request.params;
      enforce(context, caller, `${POLICY}_unset`, id);
      await context.writer.deleteFrom("default_types").where("project_id", "=", id).execute();
      return { status: 204 };
    },
  }),
];
