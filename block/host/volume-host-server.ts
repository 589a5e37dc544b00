import type { Log } from "../../common/log.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import type { VolumeHost } from "../volume-host.ts";
import type { VolumeData } from "../volume-data.ts";
import { decodeHostRequest, type HostRequest } from "../wire.ts";

type Served = { readonly host: VolumeHost; readonly data: VolumeData };

const answer = async ({ host, data }: Served, request: HostRequest, body: Buffer): Promise<unknown> => {
  switch (request.method) {
    case "pools":
      // What is not there has no place on the wire.
      return (await host.pools()).map(({ failure, ...pool }) => (failure === undefined ? pool : { ...pool, failure }));
    case "createVolume":
      return host.createVolume(request.argument);
    case "deleteVolume":
      return host.deleteVolume(request.argument.volumeId);
    case "extendVolume":
      return host.extendVolume(request.argument.volumeId, request.argument.sizeBytes);
    case "createSnapshot":
      return host.createSnapshot(request.argument.volumeId, request.argument.snapshotId);
    case "deleteSnapshot":
      return host.deleteSnapshot(request.argument.volumeId, request.argument.snapshotId);
    case "revertVolume":
      return host.revertVolume(request.argument.volumeId, request.argument.snapshotId);
    case "flattenVolume": {
      const { failure, ...progress } = await host.flattenVolume(request.argument.volumeId);
      return failure === undefined ? progress : { ...progress, failure };
    }
    case "exportVolume":
      return host.exportVolume(request.argument);
    case "unexportVolume":
      return host.unexportVolume(request.argument.volumeId, request.argument.attachmentId);
    case "limitVolumes":
      return host.limitVolumes(new Map(request.argument.limits));
    case "exports":
      return host.exports();
    case "snapshotChanges": {
      const { extents, ...about } = await data.changes(request.argument);
      return { ...about, extents: extents.map(({ offset, length, isZero }) => [offset, length, isZero]) };
    }
    case "readSnapshot":
      return data.read(request.argument);
    case "releaseSnapshot":
      return data.release(request.argument.volumeId, request.argument.snapshotId);
    case "beginWriting":
      return data.begin(request.argument);
    case "writeVolume":
      return data.write(request.argument, request.argument.offset, body);
    case "zeroVolume":
      return data.zero(request.argument, request.argument.offset, request.argument.length);
    case "flushVolume":
      return data.flush(request.argument);
    case "endWriting":
      return data.end(request.argument);
    case "restoreVolume":
      return data.restore(request.argument);
    case "restoration": {
      const { damage, ...progress } = await data.restoration(request.argument.backupId);
      return damage === undefined ? progress : { ...progress, damage };
    }
  }
};

/** Answers the calls of wire.ts to whoever knows the cluster key. */
export const createVolumeHostServer = (served: Served, clusterKey: Buffer, log: Log): RpcServer =>
  new RpcServer(
    clusterKey,
    (header, body, reply) => {
      answer(served, decodeHostRequest(header), body).then(
        (result) => {
          if (Buffer.isBuffer(result)) reply.give([{}], result);
          else reply.ok([result ?? {}]);
        },
        (error: unknown) => reply.error(error),
      );
    },
    log,
  );
