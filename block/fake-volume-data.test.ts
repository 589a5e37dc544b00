import { createFakeVolumeData } from "./fake-volume-data.ts";
import { createFakeVolumeHost } from "./fake-volume-host.ts";
import { contractBackup, volumeDataContract } from "./volume-data.contract.ts";

volumeDataContract(async () => {
  const host = createFakeVolumeHost({ lvm: 1 });
  const data = createFakeVolumeData(host);
  const { backup, contents } = await contractBackup();
  data.contents = contents;
  return {
    host,
    data,
    pool: "lvm",
    backup,
    write: async (volumeId, offset, bytes) => data.put(volumeId, offset, bytes),
  };
});
