import type { VolumeExport } from "../volume-host.ts";

/** How a connector reaches a volume. */
export type Connection = {
  readonly volumeId: string;
  readonly exportId: string;
  readonly isReadOnly: boolean;
  readonly opened: VolumeExport;
  /** Limits that the client has to keep, by the names that its hypervisor knows. */
  readonly qosSpecs: Readonly<Record<string, string>> | undefined;
};

/** What is the same for every transport, under the names that os-brick and Nova read. */
const common = ({ volumeId, exportId, isReadOnly, qosSpecs }: Connection) => ({
  volume_id: volumeId,
  attachment_id: exportId,
  access_mode: isReadOnly ? "ro" : "rw",
  encrypted: false,
  qos_specs: qosSpecs ?? null,
  cacheable: false,
  discard: true,
});

/**
 * What os-brick's connector for iSCSI reads: one portal, and the same as lists of one, which is what it goes by for several paths. Discovery is not
 * needed, and needs a secret that nobody is told.
 */
const iscsiFields = (opened: Extract<VolumeExport, { kind: "iscsi" }>) => {
  const portal = `${opened.host.includes(":") ? `[${opened.host}]` : opened.host}:${opened.port}`;
  return {
    target_discovered: false,
    target_portal: portal,
    target_iqn: opened.targetName,
    target_lun: opened.diskNumber,
    target_portals: [portal],
    target_iqns: [opened.targetName],
    target_luns: [opened.diskNumber],
    auth_method: "CHAP",
    auth_username: opened.username,
    auth_password: opened.secret,
  };
};

/** `connection_info.data`: an NBD export, as a URI (nbd-uri.md of the NBD project) and in its parts; or an iSCSI disk. */
const dataOf = (connection: Connection): Readonly<Record<string, unknown>> => {
  const { opened } = connection;
  switch (opened.kind) {
    case "nbd-unix":
      return {
        ...common(connection),
        transport: "unix",
        export_name: opened.exportName,
        socket_path: opened.socketPath,
        uri: `nbd+unix:///${encodeURIComponent(opened.exportName)}?socket=${encodeURIComponent(opened.socketPath)}`,
      };
    case "nbd-tls":
      return {
        ...common(connection),
        transport: "tcp",
        export_name: opened.exportName,
        host: opened.host,
        port: opened.port,
        credential_folder: opened.credentialFolder,
        uri: `nbds://${opened.host}:${opened.port}/${encodeURIComponent(opened.exportName)}`,
      };
    case "iscsi":
      return { ...common(connection), ...iscsiFields(opened) };
  }
};

/** Which connector of the client's is meant. */
const driverOf = ({ opened }: Connection): "nbd" | "iscsi" => (opened.kind === "iscsi" ? "iscsi" : "nbd");

/** The answer of os-initialize_connection. */
export const connectionInfo = (connection: Connection): object => ({
  driver_volume_type: driverOf(connection),
  data: dataOf(connection),
});

/** Fields that let in whoever has them. What only says where something is does not: sockets and folders are closed to others. */
const SECRET_FIELDS: readonly string[] = ["auth_username", "auth_password"];

/** The same as the attachments API has it: one flat object. Without secrets it says where the volume is, and opens nothing. */
export const flatConnectionInfo = (connection: Connection, withSecrets: boolean): object => ({
  driver_volume_type: driverOf(connection),
  ...Object.fromEntries(
    Object.entries(dataOf(connection)).filter(([name]) => withSecrets || !SECRET_FIELDS.includes(name)),
  ),
});
