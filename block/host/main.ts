import { runServiceProcess } from "../../common/service-process.ts";
import { startBlockHost } from "./service.ts";

// Whatever this process or a daemon of it makes is for this user alone.
process.umask(0o077);
await runServiceProcess("block-host", startBlockHost);
