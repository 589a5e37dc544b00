import { Type } from "typebox";

const NAME_MAX = 64;
const TAG_MAX = 255;
/** Of one project. */
export const TAGS_MAX = 80;

/** Of a project or domain; white space at its ends is cut. */
export const projectName = Type.String({ minLength: 1, maxLength: NAME_MAX, pattern: "\\S" });

export const projectTag = Type.String({ minLength: 1, maxLength: TAG_MAX, pattern: "^[^,/]*[^,/\\s][^,/]*$" });

export const projectTags = Type.Array(projectTag, { maxItems: TAGS_MAX, uniqueItems: true });

/** `null` takes an option back. */
export const projectOptions = Type.Object(
  { immutable: Type.Optional(Type.Union([Type.Boolean(), Type.Null()])) },
  { additionalProperties: false },
);

export const description = Type.Union([Type.String(), Type.Null()]);

/** Ids in bodies, as Keystone has them. */
export const nullableId = Type.Union([
  Type.String({ minLength: 1, maxLength: 64, pattern: "^[a-zA-Z0-9-]+$" }),
  Type.Null(),
]);
