import { readFileSync } from "node:fs";
import { Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { replaceFile } from "../../../common/replace-file.ts";
import { type Chains, newLayersOf, NO_CHAINS } from "../core/chains.ts";

/** Version of what is written (FORMAT.md). */
const VERSION = 1;

const id = Type.String({ pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" });
const projectId = Type.String({ pattern: "^[A-Za-z0-9_-]{1,64}$" });
const layerId = Type.String({ pattern: "^[0-9a-f]{20}$" });
const bytes = Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER });
const closed = { additionalProperties: false };
const stage = Type.Enum(["making", "made"]);
const sized = { volumeId: id, sizeBytes: bytes, stage };
const ofSnapshot = { volumeId: id, snapshotId: id, overlay: layerId, stage };

const recordsSchema = Type.Object(
  {
    version: Type.Literal(VERSION),
    layers: Type.Array(
      Type.Object(
        {
          id: layerId,
          pool: Type.String({ minLength: 1 }),
          format: Type.Enum(["raw", "qcow2", "backup"]),
          virtualBytes: bytes,
          base: Type.Optional(layerId),
          backup: Type.Optional(Type.Object({ projectId, backupId: id }, closed)),
        },
        closed,
      ),
    ),
    volumes: Type.Array(
      Type.Object(
        {
          id,
          pool: Type.String({ minLength: 1 }),
          sizeBytes: bytes,
          top: layerId,
          snapshots: Type.Array(Type.Object({ id, layer: layerId, sizeBytes: bytes }, closed)),
          leaving: Type.Optional(layerId),
          restorationId: Type.Optional(id),
        },
        closed,
      ),
    ),
    pending: Type.Array(
      Type.Union([
        Type.Object({ kind: Type.Literal("create"), ...sized, layer: layerId }, closed),
        Type.Object({ kind: Type.Literal("clone"), ...sized, layer: layerId, sourceId: id, overlay: layerId }, closed),
        Type.Object({ kind: Type.Literal("snapshot"), ...ofSnapshot }, closed),
        Type.Object({ kind: Type.Literal("extend"), ...sized, overlay: Type.Optional(layerId) }, closed),
        Type.Object({ kind: Type.Literal("revert"), ...ofSnapshot }, closed),
        Type.Object(
          { kind: Type.Literal("restore"), volumeId: id, restorationId: id, remote: layerId, overlay: layerId, stage },
          closed,
        ),
        Type.Object({ kind: Type.Literal("merge"), volumeId: id, upper: layerId, lower: layerId, stage }, closed),
        Type.Object({ kind: Type.Literal("flatten"), volumeId: id, layer: layerId, base: layerId, stage }, closed),
      ]),
    ),
  },
  closed,
);

const damaged = (path: string, what: string): never => {
  throw new RingsteadError(
    "records-damaged",
    `${path} ${what}: it says which bytes are which volume's, so nothing is served before a sound copy is there`,
  );
};

/** What the text of a record file says. Throws RingsteadError `records-damaged`; `path` is for the message. */
export const decodeChains = (text: string, path: string): Chains => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return damaged(path, "is not JSON");
  }
  if (!Value.Check(recordsSchema, value)) return damaged(path, `is not of version ${VERSION} of its format`);
  const chains: Chains = {
    layers: new Map(value.layers.map((layer) => [layer.id, layer])),
    volumes: new Map(value.volumes.map((volume) => [volume.id, volume])),
    pending: value.pending,
  };
  const named = [
    ...value.layers.flatMap(({ base }) => base ?? []),
    ...value.volumes.flatMap(({ top, snapshots }) => [top, ...snapshots.map(({ layer }) => layer)]),
    ...value.pending.flatMap((pending) => {
      if (pending.kind === "merge") return [pending.upper, pending.lower];
      return pending.kind === "flatten" ? [pending.layer, pending.base] : newLayersOf(pending);
    }),
  ];
  const missing = named.find((layer) => !chains.layers.has(layer));
  return missing === undefined ? chains : damaged(path, `names the layer ${missing}, which it does not have`);
};

export const encodeChains = ({ layers, volumes, pending }: Chains): string =>
  `${JSON.stringify({ version: VERSION, layers: [...layers.values()], volumes: [...volumes.values()], pending })}\n`;

/** The written chains of a host. */
export class ChainRecords {
  readonly #path: string;
  #chains: Chains;

  private constructor(path: string, chains: Chains) {
    this.#path = path;
    this.#chains = chains;
  }

  /** Errors: "records-damaged". */
  static opened(path: string): ChainRecords {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error;
      return new ChainRecords(path, NO_CHAINS);
    }
    return new ChainRecords(path, decodeChains(text, path));
  }

  get chains(): Chains {
    return this.#chains;
  }

  /** Returns once the new state is on the disk. */
  change(next: Chains): void {
    replaceFile(this.#path, encodeChains(next), 0o600);
    this.#chains = next;
  }
}
