import { createFakeVolumeHost } from "./fake-volume-host.ts";
import { volumeHostContract } from "./volume-host.contract.ts";

volumeHostContract(() => Promise.resolve({ host: createFakeVolumeHost({ lvm: 0.5 }), pool: "lvm" }));
