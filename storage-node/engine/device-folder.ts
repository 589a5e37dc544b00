import { dirname } from "node:path";
import { RingsteadError } from "../../common/errors.ts";
import type { Disk } from "../../common/disk.ts";
import { DEVICE_FORMAT, type DeviceIdentity } from "./format.ts";
import type { DevicePaths } from "./paths.ts";

const MAX_IDENTITY_BYTES = 4096;

/** Makes the folder where it is absent. Errors: "device-path-not-folder". */
export const makeDeviceFolder = async (disk: Disk, paths: DevicePaths): Promise<void> => {
  const kind = await disk.kindOf(paths.root);
  if (kind === "file") {
    throw new RingsteadError("device-path-not-folder", `${paths.root} is a file, not a device folder`, {
      path: paths.root,
    });
  }
  if (kind === "absent") await disk.makeFolder(paths.root);
};

/** Makes the folder this device's, or sees that it is. Errors: "device-foreign", "format-newer". */
export const claimDeviceFolder = async (disk: Disk, paths: DevicePaths, identity: DeviceIdentity): Promise<void> => {
  const found = await readIdentity(disk, paths);
  if (found === undefined) {
    // A log without an owner is somebody's data: the file that says whose was lost.
    if (
      (await disk.kindOf(paths.log)) === "folder" &&
      (await disk.list(paths.log)).some((name) => name.endsWith(".log"))
    ) {
      throw foreign(paths, "it holds a log and no readable device.json");
    }
    await makeFolders(disk, paths);
    await writeIdentity(disk, paths, identity);
    return;
  }
  if (typeof found["format"] !== "number") throw foreign(paths, "its device.json is no device's");
  if (found["format"] > DEVICE_FORMAT) {
    throw new RingsteadError(
      "format-newer",
      `${paths.root} was written by a newer version (format ${found["format"]})`,
      {
        path: paths.root,
        format: found["format"],
      },
    );
  }
  for (const name of ["clusterId", "node", "device"] as const) {
    if (found[name] !== identity[name]) {
      throw foreign(paths, `its ${name} is ${JSON.stringify(found[name])}, not ${JSON.stringify(identity[name])}`);
    }
  }
  await makeFolders(disk, paths);
  // Before the first record that an earlier version would take for damage.
  if (found["format"] < DEVICE_FORMAT) await writeIdentity(disk, paths, identity);
};

/** Syncs what stood there before too: the process that made it may have been killed before its sync. */
const makeFolders = async (disk: Disk, paths: DevicePaths): Promise<void> => {
  for (const folder of [paths.log, paths.large, paths.filter]) await disk.makeFolder(folder);
  for (const folder of [dirname(paths.root), paths.root, paths.log]) await disk.syncFolder(folder);
};

const foreign = (paths: DevicePaths, why: string): RingsteadError =>
  new RingsteadError("device-foreign", `${paths.root} is not this device's folder: ${why}`, { path: paths.root });

const readIdentity = async (disk: Disk, paths: DevicePaths): Promise<Record<string, unknown> | undefined> => {
  if ((await disk.kindOf(paths.identity)) !== "file") return undefined;
  const file = await disk.open(paths.identity, "existing");
  try {
    const bytes = new Uint8Array(MAX_IDENTITY_BYTES);
    const length = await file.read([bytes], 0);
    const parsed: unknown = JSON.parse(Buffer.from(bytes.buffer, 0, length).toString());
    return typeof parsed === "object" && parsed !== null ? { ...parsed } : {};
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  } finally {
    await file.close();
  }
};

const writeIdentity = async (disk: Disk, paths: DevicePaths, identity: DeviceIdentity): Promise<void> => {
  const { clusterId, node, device } = identity;
  const text = `${JSON.stringify({ format: DEVICE_FORMAT, clusterId, node, device })}\n`;
  await disk.unlink(paths.newIdentity);
  const file = await disk.open(paths.newIdentity, "create");
  try {
    await file.write(Buffer.from(text), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(paths.newIdentity, paths.identity);
  await disk.syncFolder(paths.root);
};
