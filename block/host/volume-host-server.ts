import type { Log } from "../../common/log.ts";
import { RpcServer } from "../../common/rpc/server.ts";
import type { VolumeHost } from "../volume-host.ts";
import { decodeHostRequest, type HostRequest } from "../wire.ts";

const answer = async (host: VolumeHost, request: HostRequest): Promise<unknown> => {
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
    case "exportVolume":
      return host.exportVolume(request.argument);
    case "unexportVolume":
      return host.unexportVolume(request.argument.volumeId, request.argument.attachmentId);
    case "exports":
      return host.exports();
  }
};

/** Answers the calls of wire.ts to whoever knows the cluster key. */
export const createVolumeHostServer = (host: VolumeHost, clusterKey: Buffer, log: Log): RpcServer =>
  new RpcServer(
    clusterKey,
    (header, _body, reply) => {
      answer(host, decodeHostRequest(header)).then(
        (result) => reply.ok([result ?? {}]),
        (error: unknown) => reply.error(error),
      );
    },
    log,
  );
