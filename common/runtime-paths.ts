import { createHash } from "node:crypto";
import { join, resolve } from "node:path";

/** `sun_path` holds 108 bytes with its final zero; the longest name we put into the folder has fewer than this many. */
const SOCKET_PATH_BYTES = 107;
const SOCKET_NAME_BYTES = 48;

/** Every path that more than one process of an installation knows. The one place that names files in DIR. */
export type RuntimePaths = {
  readonly dataDir: string;
  readonly clusterToml: string;
  /** 32 random bytes as hex, mode 0600. */
  readonly clusterKey: string;
  /** Version of this layout of files, a decimal number. */
  readonly layoutVersion: string;
  /** One UUID: device folders carry it, so that a folder of another cluster is refused. */
  readonly clusterId: string;
  /** There from the moment an installation is made until it first served: what is empty is so by right. */
  readonly founding: string;
  readonly ringsDir: string;
  /** `object-0`, `container`, `account`. */
  ringFile(name: string): string;
  builderFile(name: string): string;
  readonly devicesDir: string;
  /** There since a disk was seen mounted at the path of `device`. */
  mountedDisk(device: string): string;
  /** What an operator says of the repair of devices; not there as long as nobody said anything. */
  readonly repairSettings: string;
  readonly identityDir: string;
  /** The control side of the block service; its hosts have a folder of their own. */
  readonly blockDir: string;
  readonly policyDir: string;
  /** Where an operator overrides rules of `service` (`identity`, …); not there as long as nobody wrote it. */
  policyFile(service: string): string;
  readonly adminPassword: string;
  readonly logsDir: string;
  logFile(role: string): string;
  /** 0700; outside DIR where DIR is too long for a socket's path. */
  readonly socketDir: string;
  socket(role: string): string;
  readonly readyJson: string;
  /** Holds pid and start time of the running supervisor. */
  readonly supervisorLock: string;
  /** What the supervisor knows of its children: restarts, reasons, since when. */
  readonly supervisorState: string;
  readonly openrc: string;
  readonly cloudsYaml: string;
};

const socketDirOf = (dataDir: string): string => {
  const inside = join(dataDir, "run");
  if (Buffer.byteLength(inside) + 1 + SOCKET_NAME_BYTES <= SOCKET_PATH_BYTES) return inside;
  const digest = createHash("sha256").update(dataDir).digest("hex").slice(0, 16);
  // Not os.tmpdir(): `up` and `down` may run with different TMPDIR and must agree.
  return `/tmp/ringstead-${process.getuid?.() ?? 0}-${digest}`;
};

/** The paths of the installation in `dataDir`. Pure: creates nothing. */
export const runtimePaths = (dataDir: string): RuntimePaths => {
  const root = resolve(dataDir);
  const socketDir = socketDirOf(root);
  return {
    dataDir: root,
    clusterToml: join(root, "cluster.toml"),
    clusterKey: join(root, "cluster.key"),
    clusterId: join(root, "cluster.id"),
    layoutVersion: join(root, "layout-version"),
    founding: join(root, "founding"),
    ringsDir: join(root, "rings"),
    ringFile: (name) => join(root, "rings", `${name}.ring`),
    builderFile: (name) => join(root, "rings", `${name}.builder`),
    devicesDir: join(root, "devices"),
    mountedDisk: (device) => join(root, `${device}.mounted`),
    repairSettings: join(root, "repair.json"),
    identityDir: join(root, "identity"),
    blockDir: join(root, "block"),
    policyDir: join(root, "policy"),
    policyFile: (service) => join(root, "policy", `${service}.yaml`),
    adminPassword: join(root, "identity", "admin-password"),
    logsDir: join(root, "logs"),
    logFile: (role) => join(root, "logs", `${role}.log`),
    socketDir,
    socket: (role) => join(socketDir, `${role}.sock`),
    readyJson: join(root, "ready.json"),
    supervisorLock: join(root, "supervisor.lock"),
    supervisorState: join(root, "supervisor.json"),
    openrc: join(root, "openrc"),
    cloudsYaml: join(root, "clouds.yaml"),
  };
};
