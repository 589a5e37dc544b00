import { type Static, Type } from "typebox";

const closed = { additionalProperties: false };
const domain = Type.Object({ id: Type.Optional(Type.String()), name: Type.Optional(Type.String()) }, closed);

const localRule = Type.Object(
  {
    user: Type.Optional(
      Type.Object(
        {
          id: Type.Optional(Type.String()),
          name: Type.Optional(Type.String()),
          email: Type.Optional(Type.String()),
          domain: Type.Optional(domain),
          type: Type.Optional(Type.Union([Type.Literal("ephemeral"), Type.Literal("local")])),
        },
        closed,
      ),
    ),
    group: Type.Optional(
      Type.Union([Type.Object({ id: Type.String() }, closed), Type.Object({ name: Type.String(), domain }, closed)]),
    ),
    groups: Type.Optional(Type.String()),
    group_ids: Type.Optional(Type.String()),
    domain: Type.Optional(domain),
    projects: Type.Optional(
      Type.Array(
        Type.Object({ name: Type.String(), roles: Type.Array(Type.Object({ name: Type.String() }, closed)) }, closed),
      ),
    ),
  },
  closed,
);

const values = Type.Array(Type.String());
const type = Type.String();
const regex = Type.Optional(Type.Boolean());

const remoteRule = Type.Union([
  Type.Object({ type }, closed),
  Type.Object({ type, regex, any_one_of: values }, closed),
  Type.Object({ type, regex, not_any_of: values }, closed),
  Type.Object({ type, regex, blacklist: values }, closed),
  Type.Object({ type, regex, whitelist: values }, closed),
]);

/** The rules of a mapping: Keystone's language, by which what a provider says of a user becomes an identity here. */
export const mappingRules = Type.Array(
  Type.Object({ local: Type.Array(localRule), remote: Type.Array(remoteRule, { minItems: 1 }) }, closed),
  { minItems: 1 },
);

export type MappingRules = Static<typeof mappingRules>;
export type LocalRule = Static<typeof localRule>;
export type RemoteRule = Static<typeof remoteRule>;
export type MappedDomain = Static<typeof domain>;
