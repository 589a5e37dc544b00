import { inject } from "vitest";
import { keepRowsOn } from "./test-database.ts";

// Runs before each file of the project `postgres` (vitest.config.ts).
keepRowsOn(inject("postgres"));
