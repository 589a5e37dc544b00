import { randomBytes, randomUUID } from "node:crypto";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { silentLog } from "../../../common/log.ts";
import { endProcesses } from "../../../common/process-identity.ts";
import type { Layer, LayerId } from "../core/chains.ts";
import { emptyImage, emptyImageBytes } from "../core/qcow2-image.ts";
import { FileDriver } from "../drivers/file.ts";
import { DiskFront } from "../iscsi/disk-front.ts";
import { TestHost } from "../test-host.ts";
import type { PlacedLayer } from "./block-graph.ts";
import { Exports } from "./exports.ts";

const MIB = 1024 * 1024;

/** A volume of one layer, and a larger overlay that it is to be extended by. */
const newVolume = async () => {
  const { paths, folder } = new TestHost("file");
  const [volumeId, base, overlay] = [randomUUID(), randomBytes(10).toString("hex"), randomBytes(10).toString("hex")];
  const driver = await FileDriver.opened(join(folder, "layers"));
  const image = emptyImage(32 * MIB);
  await driver.create(base, 16 * MIB);
  await driver.create(overlay, emptyImageBytes(32 * MIB));
  const placed = async (layer: Omit<Layer, "pool">): Promise<PlacedLayer> => {
    const place = await driver.place(layer.id);
    if (place === undefined) throw new Error("a layer is not there");
    return { layer: { ...layer, pool: "file" }, place };
  };
  const lower = await placed({ id: base, format: "raw", virtualBytes: 16 * MIB });
  const upper = await placed({ id: overlay, format: "qcow2", virtualBytes: 32 * MIB, base });
  const file = await open(upper.place.kind === "backup" ? "" : upper.place.path, "r+");
  for (const { offset, bytes } of image) await file.write(bytes, 0, bytes.length, offset);
  await file.close();
  const exports = new Exports({
    paths,
    host: "127.0.0.1",
    publicHost: "127.0.0.1",
    firstPort: 20_000 + Math.floor(Math.random() * 20_000),
    iscsiPort: 11_000 + Math.floor(Math.random() * 8000),
    log: silentLog,
    chainOf: async (_, top) => (top === overlay ? [upper, lower] : [lower]),
    limitsOf: () => ({}),
    onLost: () => undefined,
  });
  const attachmentId = randomUUID();
  onTestFinished(async () => {
    await exports.unexport(volumeId, undefined);
    exports.release();
  });
  await exports.export({ volumeId, attachmentId, transport: "iscsi", isReadOnly: false });
  const disk = join(paths.disksFolder, volumeId);
  const files = {
    pidFile: join(disk, "pid"),
    log: join(disk, "log"),
    disk: join(disk, "disk"),
    mark: join(disk, "unflushed"),
    control: paths.frontSocket(volumeId),
    nbdSocket: paths.nbdSocket(volumeId),
  };
  return { exports, volumeId, overlay: overlay as LayerId, files };
};

type Files = Awaited<ReturnType<typeof newVolume>>["files"];

/** In the place of the disk's front one that shows nothing yet: it refuses to be held. */
const replaceFront = async (files: Files): Promise<void> => {
  const before = await DiskFront.adopted(files);
  if (before === undefined) throw new Error("there is no front");
  await endProcesses([before.identity], 0);
  before.release();
  (await DiskFront.started(files)).release();
};

test("a volume that cannot be held for its new layer is refused, and the layer may be erased", async () => {
  const { exports, volumeId, overlay, files } = await newVolume();
  await replaceFront(files);
  await expect(exports.reopen(volumeId, overlay, 32 * MIB)).rejects.toMatchObject({ code: "daemon-refused" });
});

test("a change that goes on once clients write to the new layer is not refused where the volume cannot be held: the layer stays", async () => {
  const { exports, volumeId, overlay, files } = await newVolume();
  await exports.reopen(volumeId, overlay, 32 * MIB);
  await replaceFront(files);
  await expect(exports.reopen(volumeId, overlay, 32 * MIB)).rejects.toMatchObject({ code: "daemon-lost" });
});
