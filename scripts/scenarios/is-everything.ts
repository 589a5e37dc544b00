/** What takes minutes or much disk is left to `./scripts/test all`. */
export const isEverything = process.env["LARGE_TRANSFERS"] === "1";
