import { createFakeVolumeData } from "./fake-volume-data.ts";
import { createFakeVolumeHost } from "./fake-volume-host.ts";
import { volumeDataContract } from "./volume-data.contract.ts";

volumeDataContract(async () => {
  const host = createFakeVolumeHost({ lvm: 1 });
  const data = createFakeVolumeData(host);
  return { host, data, pool: "lvm", write: async (volumeId, offset, bytes) => data.put(volumeId, offset, bytes) };
});
