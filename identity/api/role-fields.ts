import { parsed } from "../store/records.ts";
import type { Role } from "../store/schema.ts";

/** A role in Keystone's shape, as it stands within other things: without links. */
export const roleFields = ({ id, name, domain_id, description, options, extra }: Role) => ({
  ...parsed(extra),
  id,
  name,
  domain_id,
  description,
  options: parsed(options),
});
