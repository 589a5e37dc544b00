import { Type } from "typebox";
import type { HttpMethod } from "../../../common/http/route.ts";
import { unauthorized } from "../../core/identity-error.ts";
import { type IdentityRoute, openRoute } from "../identity-route.ts";
import { tokenBody } from "../token-body.ts";

const PATH = "/v3/OS-FEDERATION/identity_providers/:idp_id/protocols/:protocol_id/auth";

const params = Type.Object({ idp_id: Type.String(), protocol_id: Type.String() });

/** An ID or access token of the provider in the header Authorization becomes an unscoped token of this service. */
const login = (method: HttpMethod): IdentityRoute =>
  openRoute({
    method,
    path: PATH,
    request: { params },
    handler: async (request, context) => {
      const { idp_id, protocol_id } = request.params;
      const [, bearer] = /^Bearer +(\S+)$/i.exec(request.header("authorization") ?? "") ?? [];
      if (bearer === undefined) throw unauthorized("no token of the provider");
      const payload = { identity_provider: idp_id, protocol: protocol_id, token: bearer };
      const { token, details } = await context.tokens.authenticate({
        methods: [{ name: protocol_id, payload }],
        scope: { kind: "unscoped" },
        remoteAddress: request.remoteAddress,
        receipt: request.header("openstack-auth-receipt"),
      });
      return { status: 201, headers: { "x-subject-token": token }, body: tokenBody(details, undefined) };
    },
  });

export const FEDERATED_LOGIN_ROUTES: readonly IdentityRoute[] = [login("GET"), login("POST")];
