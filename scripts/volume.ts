import { readClusterKey } from "../common/cluster-key.ts";
import { RingsteadError } from "../common/errors.ts";
import { RpcClient } from "../common/rpc/client.ts";
import { runtimePaths } from "../common/runtime-paths.ts";
import { createVolumeHostClient } from "../block/client.ts";
import type { VolumeExport, VolumeHost, WantedExport } from "../block/volume-host.ts";
import { BLOCK_HOST_SOCKET } from "../block/wire.ts";
import { connectKernelDisk, freeKernelDisk } from "./kernel-disk.ts";
import { dataDirOf, parseOptions } from "./up-options.ts";

const HELP = `ringstead volume export ID --protocol nbd|iscsi [--tcp] [--read-only] [--write-through] [--data DIR]
ringstead volume attach ID [--data DIR]
ringstead volume unexport ID [--data DIR]

  export    serves the volume and prints where, as qemu-img, nbdinfo, nbdcopy, fio and libiscsi take it:
              nbd+unix:///NAME?socket=PATH                                     for programs on this machine
              nbds://USER@HOST:PORT/NAME?tls-psk-file=FOLDER/keys.psk          with --tcp: TLS with a key of this export alone;
              iscsi://USER%SECRET@HOST:PORT/TARGET/DISK                        with --protocol iscsi: CHAP with a secret of this export alone
            QEMU takes the key of nbds as --object tls-creds-psk,id=…,dir=FOLDER,username=USER,endpoint=client.
            With --write-through a write is answered once it is on the disk, and outlives even a daemon that is killed under a client that
            comes back without noticing; without it that holds for what the client flushed. It costs most of the speed of writing.
            Again with the same options: the same line. It stays until unexport, also through restarts.
  attach    exports it over NBD and makes it a disk of this machine with the kernel's client; prints the disk
  unexport  cuts its clients off
`;

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

const attach = async (host: VolumeHost, volumeId: string): Promise<string> => {
  const disk = freeKernelDisk();
  const exported = await serve(host, volumeId, {});
  if (exported.kind !== "nbd-unix") throw new Error("a Unix socket was asked for");
  await connectKernelDisk(disk, exported.socketPath, exported.exportName);
  return disk;
};

/** `ringstead volume export|attach|unexport ID`: asks the block host of this machine. */
export const volume = async (argv: readonly string[]): Promise<number> => {
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
  if (word !== "export" && word !== "unexport" && word !== "attach")
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
  else if (word === "attach") process.stdout.write(`${await attach(host, id)}\n`);
  else await host.unexportVolume(id, id);
  return 0;
};
