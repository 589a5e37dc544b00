/**
 * The devices of one machine by the storage-node process that serves them: one process for each file system, so that an I/O error,
 * which kills the process whose map it hits, takes what lies on that disk and nothing else. A list with at most one group stands for a
 * single process.
 */
export type DeviceGroups = readonly (readonly string[])[];

/** The name of the process that serves `device`: of its socket, its log and its metrics. */
export const storageNodeName = (groups: DeviceGroups, device: string): string => {
  const group = groups.find((devices) => devices.includes(device)) ?? groups[0];
  const first = group?.[0];
  return groups.length <= 1 || first === undefined ? "storage-node" : `storage-node-${first}`;
};

/** The devices that the process `name` serves; undefined: all of them. */
export const devicesOfStorageNode = (groups: DeviceGroups, name: string): readonly string[] | undefined =>
  groups.length <= 1 ? undefined : groups.find(([first = ""]) => storageNodeName(groups, first) === name);

/** As an argument of a process: `d1+d2,d3`. */
export const formatDeviceGroups = (groups: DeviceGroups): string =>
  groups.map((devices) => devices.join("+")).join(",");

export const parseDeviceGroups = (text: string): DeviceGroups =>
  text === "" ? [] : text.split(",").map((devices) => devices.split("+"));
