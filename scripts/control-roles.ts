/** Environment variable that tells the process `control` which of its roles it has, joined by commas. */
export const CONTROL_ROLES = "RINGSTEAD_CONTROL_ROLES";

/** Roles that are served by the one process `control`. */
export const ROLES_OF_CONTROL = ["identity", "block-api"] as const;
