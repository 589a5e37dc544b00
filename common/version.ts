import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The version in package.json. */
export const version = (): string => {
  const file = join(import.meta.dirname, "..", "package.json");
  const manifest: unknown = JSON.parse(readFileSync(file, "utf8"));
  const found =
    typeof manifest === "object" && manifest !== null && "version" in manifest ? manifest.version : undefined;
  return typeof found === "string" ? found : "unknown";
};
