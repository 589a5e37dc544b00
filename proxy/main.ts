import { runServiceProcess } from "../common/service-process.ts";
import { startProxy } from "./service.ts";

await runServiceProcess("proxy", startProxy);
