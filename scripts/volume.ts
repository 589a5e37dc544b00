import { readClusterKey } from "../common/cluster-key.ts";
import { codeOf, messageOf, RingsteadError } from "../common/errors.ts";
import { RpcClient } from "../common/rpc/client.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { sleep } from "../common/worker.ts";
import { createVolumeHostClient } from "../block/client.ts";
import type { VolumeExport, VolumeHost, WantedExport } from "../block/volume-host.ts";
import { BLOCK_HOST_SOCKET } from "../block/wire.ts";
import { targetNameOf } from "../block/host/iscsi/iscsi-exports.ts";
import { connectKernelDisk, disconnectKernelDisk, freeKernelDisk, kernelDisksOf } from "./kernel-disk.ts";
import { connectIscsiDisk, disconnectIscsiDisk, whyNoKernelIscsi } from "./kernel-iscsi.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";
import { volumeSchedule } from "./volume-schedule.ts";

const HELP = `ringstead volume export ID --protocol nbd|iscsi [--tcp] [--read-only] [--write-through] [--data DIR]
ringstead volume attach ID [--protocol nbd|iscsi] [--data DIR]
ringstead volume detach ID [--data DIR]
ringstead volume unexport ID [--data DIR]
ringstead volume flatten ID [--data DIR]
ringstead volume schedule ID [--every TIME --keep N | --off] [--data DIR]

  export    serves the volume and prints where, as qemu-img, nbdinfo, nbdcopy, fio and libiscsi take it:
              nbd+unix:///NAME?socket=PATH                                     for programs on this machine
              nbds://USER@HOST:PORT/NAME?tls-psk-file=FOLDER/keys.psk          with --tcp: TLS with a key of this export alone;
              iscsi://USER%SECRET@HOST:PORT/TARGET/DISK                        with --protocol iscsi: CHAP with a secret of this export alone
            QEMU takes the key of nbds as --object tls-creds-psk,id=…,dir=FOLDER,username=USER,endpoint=client.
            With --write-through a write is answered once it is on the disk, and outlives even a daemon that is killed under a client that
            comes back without noticing; without it that holds for what the client flushed. It costs most of the speed of writing.
            Again with the same options: the same line. It stays until unexport, also through restarts.
  attach    exports it and makes it a disk of this machine with the kernel's client; prints the disk. Over iSCSI, where the kernel has an
            initiator: then the disk waits while the volume's daemon is away, and has the new size of a volume that was extended once this is
            said again. Else over NBD, written through: then such a disk fails what is asked of it meanwhile, and an extension ends it.
  detach    takes the disk away, and the export with it; unmount it first
  unexport  cuts its clients off
  flatten   has a volume that was made of another, or that others were made of, share nothing with them any more: what it has of them is copied,
            while it is used or not. The command waits for that; where it is ended, the copy goes on. A volume that reads through more than
            16 layers is copied so by itself.
  schedule  has the volume backed up every TIME (30m, 6h, 1d, 2w), the first time at once: what changed since the backup before. The latest N
            that can be restored from are kept. --off ends that, and leaves the backups. Alone it shows the schedule, and why the last backup
            was not made.
`;

const WORDS: readonly string[] = ["export", "unexport", "attach", "detach", "flatten"];
const FLATTEN_LOOK_MS = 200;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const lineOf = (exported: VolumeExport): string => {
  if (exported.kind === "nbd-unix")
    return `nbd+unix:///${exported.exportName}?socket=${encodeURI(exported.socketPath)}`;
  const name = exported.host.includes(":") ? `[${exported.host}]` : exported.host;
  if (exported.kind === "iscsi") {
    const { port, targetName, diskNumber, username, secret } = exported;
    return `iscsi://${username}%${secret}@${name}:${port}/${targetName}/${diskNumber}`;
  }
  const { port, exportName, credentialFolder } = exported;
  return `nbds://${exportName}@${name}:${port}/${exportName}?tls-psk-file=${encodeURI(credentialFolder)}/keys.psk`;
};

type Options = {
  readonly protocol?: string;
  readonly tcp?: boolean;
  readonly "read-only"?: boolean;
  readonly "write-through"?: boolean;
};

const transportOf = ({ protocol = "nbd", tcp = false }: Options): WantedExport["transport"] => {
  // It is always over TCP, and always asks who is there.
  if (protocol === "iscsi") return "iscsi";
  if (protocol === "nbd") return tcp ? "tcp" : "unix";
  throw new RingsteadError(
    "usage",
    `volumes are exported over nbd or iscsi, not "${protocol}" (see: ringstead volume help)`,
  );
};

/** An operator's export is an attachment of its own, found again by the volume alone. */
const serve = (host: VolumeHost, volumeId: string, options: Options): Promise<VolumeExport> =>
  host.exportVolume({
    volumeId,
    attachmentId: volumeId,
    transport: transportOf(options),
    isReadOnly: options["read-only"] === true,
    isWriteThrough: options["write-through"] === true,
  });

const freeDisk = (whyNoIscsi: string | undefined): string => {
  try {
    return freeKernelDisk();
  } catch (error) {
    if (codeOf(error) !== "kernel-cannot" || whyNoIscsi === undefined) throw error;
    throw new RingsteadError("kernel-cannot", `${messageOf(error)}. Over iSCSI: ${whyNoIscsi}`);
  }
};

const attach = async (host: VolumeHost, volumeId: string, protocol: string | undefined): Promise<string> => {
  if (protocol !== undefined) transportOf({ protocol });
  const [disk] = kernelDisksOf(volumeId);
  if (disk !== undefined && protocol !== "iscsi") return disk;
  const whyNoIscsi = protocol === "nbd" ? "nbd was asked for" : await whyNoKernelIscsi();
  if (protocol === "iscsi" && whyNoIscsi !== undefined)
    throw new RingsteadError("kernel-cannot", `this machine cannot make a disk of a volume over iSCSI: ${whyNoIscsi}`);
  if (whyNoIscsi === undefined) {
    const exported = await serve(host, volumeId, { protocol: "iscsi" });
    if (exported.kind !== "iscsi") throw new Error("iSCSI was asked for");
    return connectIscsiDisk(exported);
  }
  // Before anything is served: what is missing is said first.
  const free = freeDisk(protocol === undefined ? whyNoIscsi : undefined);
  // The kernel's client comes back, and flushes at the next daemon what it wrote to the last one.
  const exported = await serve(host, volumeId, { "write-through": true });
  if (exported.kind !== "nbd-unix") throw new Error("a Unix socket was asked for");
  await connectKernelDisk(free, exported.socketPath, exported.exportName);
  return free;
};

const detach = async (host: VolumeHost, volumeId: string): Promise<void> => {
  for (const disk of kernelDisksOf(volumeId)) await disconnectKernelDisk(disk);
  await disconnectIscsiDisk(targetNameOf(volumeId));
  await host.unexportVolume(volumeId, volumeId);
};

/** Tells how far it is on a terminal. Errors: "flatten-failed", and it is tried again all the same. */
const flatten = async (host: VolumeHost, volumeId: string): Promise<void> => {
  for (let said = ""; ; await sleep(FLATTEN_LOOK_MS)) {
    const { isFlat, copiedShare, failure } = await host.flattenVolume(volumeId);
    if (isFlat) return;
    if (failure !== undefined)
      throw new RingsteadError("flatten-failed", `${failure}: volume ${volumeId} is tried again after half a minute`);
    const line = `${Math.floor(copiedShare * 100)} % are copied\n`;
    if (process.stderr.isTTY && line !== said) process.stderr.write(line);
    said = line;
  }
};

/** `ringstead volume export|attach|detach|unexport|flatten ID`: asks the block host of this machine. */
export const volume = async (argv: readonly string[]): Promise<number> => {
  if (argv[0] === "schedule") return volumeSchedule(argv.slice(1));
  const options = {
    data: { type: "string" },
    protocol: { type: "string" },
    tcp: { type: "boolean" },
    "read-only": { type: "boolean" },
    "write-through": { type: "boolean" },
    help: { type: "boolean", short: "h" },
  } as const;
  const { values, positionals } = parseOptions(argv, options, true);
  const [word = "help", id = "", ...rest] = positionals;
  if (values.help === true || word === "help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (!WORDS.includes(word))
    throw new RingsteadError("usage", `there is no "ringstead volume ${word}" (see: ringstead volume help)`);
  if (!ID.test(id) || rest.length > 0)
    throw new RingsteadError(
      "usage",
      `ringstead volume ${word} takes the id of one volume (see: ringstead volume help)`,
    );
  const paths = runtimePaths(dataDirOf(values.data));
  using rpc = new RpcClient(paths.socket(BLOCK_HOST_SOCKET), readClusterKey(paths));
  const host = createVolumeHostClient(rpc);
  if (word === "export") process.stdout.write(`${lineOf(await serve(host, id, values))}\n`);
  else if (word === "attach") process.stdout.write(`${await attach(host, id, values.protocol)}\n`);
  else if (word === "detach") await detach(host, id);
  else if (word === "flatten") await flatten(host, id);
  else await host.unexportVolume(id, id);
  return 0;
};
