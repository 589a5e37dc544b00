import { Type } from "typebox";
import { blockError } from "../core/block-error.ts";

/** Cinder's limit of names, keys and values. */
const TEXT_MAX = 255;
/** What a description may have; Cinder's column. */
const DESCRIPTION_MAX = 255;
/** Pairs of one volume; Cinder's quota_metadata_items. */
const METADATA_MAX = 128;
/** 2^31 − 1 GiB, as in Cinder. */
const SIZE_MAX_GIB = 2_147_483_647;

export const uuidParams = <const Name extends string>(name: Name) =>
  Type.Object({ [name]: Type.String() } as Record<Name, ReturnType<typeof Type.String>>);

export const nameSchema = Type.Optional(Type.Union([Type.String({ maxLength: TEXT_MAX }), Type.Null()]));
export const descriptionSchema = Type.Optional(Type.Union([Type.String({ maxLength: DESCRIPTION_MAX }), Type.Null()]));

export const metadataSchema = Type.Record(
  Type.String({ pattern: `^[\\s\\S]{1,${TEXT_MAX}}$` }),
  Type.String({ maxLength: TEXT_MAX }),
  { maxProperties: METADATA_MAX, additionalProperties: false },
);

/** Metadata as it is kept beside other pairs. Throws `over-quota`. */
export const checkMetadataCount = (metadata: Readonly<Record<string, string>>): void => {
  if (Object.keys(metadata).length <= METADATA_MAX) return;
  throw blockError("over-quota", `MetadataLimitExceeded: Maximum number of metadata items (${METADATA_MAX}) exceeded.`);
};

/** A size in GiB as clients write it: a whole number, or one in a text. Throws `bad-request`. */
export const sizeOf = (value: unknown, field: string): number => {
  const number = typeof value === "string" && /^\d{1,10}$/.test(value) ? Number(value) : value;
  if (typeof number === "number" && Number.isInteger(number) && number >= 1 && number <= SIZE_MAX_GIB) return number;
  throw blockError(
    "bad-request",
    `Invalid input for field/attribute ${field}. Value: ${String(JSON.stringify(value)).slice(0, 100)}. It must be a whole number of GiB, 1 to ${SIZE_MAX_GIB}.`,
  );
};
