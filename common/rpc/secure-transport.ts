import { hkdfSync, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { type ConnectionOptions, createSecureContext, type TLSSocket, type TlsOptions } from "node:tls";
import { messageOf, RingsteadError } from "../errors.ts";

/** PEM files with which a node proves itself to others, and by which it knows them. */
export type RpcTlsFiles = { readonly cert: string; readonly key: string; readonly ca: string };

/** Where a peer on another host listens. Without `tls` the cluster key is what both sides prove in the TLS handshake. */
export type TcpAddress = { readonly host: string; readonly port: number; readonly tls?: RpcTlsFiles };

/**
 * TLS 1.3 in both cases, with an ephemeral key exchange: who learns the key later reads nothing of before. AES-128-GCM: 2.2 to 2.5 ms of CPU for 1 MiB,
 * both ends together, 1.5 in the clear; ECDHE-PSK of TLS 1.2 has ChaCha20 only (2.8), and DHE-PSK was no cheaper. A key from outside goes with the
 * hash of this suite alone.
 */
const PROTOCOL = {
  minVersion: "TLSv1.3",
  maxVersion: "TLSv1.3",
  ciphers: "TLS_AES_128_GCM_SHA256",
} as const satisfies ConnectionOptions;

const IDENTITY = "ringstead";
const KEY_LABEL = "ringstead rpc tls psk 1";
const KEY_BYTES = 32;
const BINDING_LABEL = "EXPORTER-ringstead-rpc-hello";
const BINDING_BYTES = 32;

/** The key of the TLS handshake: what it shows of itself is nothing of the cluster key. */
const pskOf = (clusterKey: Buffer): Buffer =>
  Buffer.from(hkdfSync("sha256", clusterKey, Buffer.alloc(0), KEY_LABEL, KEY_BYTES));

const read = (key: string, path: string): Buffer => {
  try {
    return readFileSync(path);
  } catch (thrown) {
    throw new RingsteadError("invalid-config", `${key} ${path} cannot be read: ${messageOf(thrown)}`, { path });
  }
};

const certificates = ({ cert, key, ca }: RpcTlsFiles): Pick<TlsOptions, "cert" | "key" | "ca"> => ({
  cert: read("rpc_tls_cert", cert),
  key: read("rpc_tls_key", key),
  ca: read("rpc_tls_ca", ca),
});

/** How `address` is connected to. With certificates, its own must name the host that it is reached at. Throws RingsteadError `invalid-config`. */
export const clientTls = (clusterKey: Buffer, { tls }: TcpAddress): ConnectionOptions => {
  if (tls !== undefined) return { secureContext: createSecureContext({ ...PROTOCOL, ...certificates(tls) }) };
  const psk = pskOf(clusterKey);
  return {
    secureContext: createSecureContext(PROTOCOL),
    // There is no certificate whose names could be looked at.
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ psk, identity: IDENTITY }),
  };
};

/** How connections to `address` are taken. Throws RingsteadError `invalid-config`. */
export const serverTls = (clusterKey: Buffer, { tls }: TcpAddress): TlsOptions => {
  if (tls !== undefined) return { ...PROTOCOL, ...certificates(tls), requestCert: true, rejectUnauthorized: true };
  const psk = pskOf(clusterKey);
  const isOurs = (identity: string): boolean => {
    const given = Buffer.from(identity);
    return given.length === IDENTITY.length && timingSafeEqual(given, Buffer.from(IDENTITY));
  };
  return { ...PROTOCOL, pskCallback: (_socket, identity) => (isOurs(identity) ? psk : null) };
};

/** A value that both ends of this very TLS connection know, and nobody else. */
export const bindingOf = (socket: TLSSocket): Buffer =>
  socket.exportKeyingMaterial(BINDING_BYTES, BINDING_LABEL, Buffer.alloc(0));

/** Errors of a handshake that say that the other side speaks something else. */
const NOT_TLS = new Set([
  "ERR_SSL_WRONG_VERSION_NUMBER",
  "ERR_SSL_HTTP_REQUEST",
  "ERR_SSL_HTTPS_PROXY_REQUEST",
  "ERR_SSL_PACKET_LENGTH_TOO_LONG",
  "ERR_SSL_BAD_RECORD_TYPE",
  "ERR_SSL_RECORD_LAYER_FAILURE",
  "ERR_SSL_UNEXPECTED_MESSAGE",
  "ERR_SSL_NO_PROTOCOLS_AVAILABLE",
  "ERR_SSL_UNSUPPORTED_PROTOCOL",
]);

/** Why a handshake failed, in words; undefined where the connection just broke. */
export const handshakeRefusal = (
  error: NodeJS.ErrnoException,
): { readonly code: string; readonly reason: string; readonly remedy: string } | undefined => {
  const code = error.code ?? "";
  const isAboutCertificate = /CERT|SIGNED|VERIFY_LEAF|UNABLE_TO/.test(code);
  if (!isAboutCertificate && !code.startsWith("ERR_SSL_") && !code.startsWith("ERR_TLS_")) return undefined;
  if (NOT_TLS.has(code)) {
    return {
      code: "rpc-not-tls",
      reason: `it does not speak TLS as this version does (${code})`,
      remedy: "if it is a Ringstead node upgrade it; if it is not, keep it away from the RPC port",
    };
  }
  return isAboutCertificate
    ? {
        code: "rpc-untrusted",
        reason: `its certificate was not accepted: ${error.message.trim()}`,
        remedy:
          "see that both nodes have rpc_tls_cert, rpc_tls_key and the same rpc_tls_ca, and that the certificate names the node's address",
      }
    : {
        code: "rpc-untrusted",
        reason: `it does not prove this cluster's key or certificate (${code})`,
        remedy: "if it is a node of this cluster give it the same key file and the same rpc_tls_ keys",
      };
};
