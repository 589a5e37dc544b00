import { runServiceProcess } from "../common/service-process.ts";
import { startStorageNode } from "./service.ts";

await runServiceProcess("storage-node", (context) => startStorageNode(context));
