import { readFileSync } from "node:fs";
import { type Static, Type } from "typebox";
import { Value } from "typebox/value";
import { codeOf, RingsteadError } from "../../../common/errors.ts";
import { replaceFile } from "../../../common/replace-file.ts";

const VERSION = 1;
const id = Type.String({ pattern: "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$" });

const exportSchema = Type.Object({
  /** `export:` and the volume's id. */
  role: Type.String(),
  volumeId: id,
  /** 0 as long as no daemon was started for it. */
  pid: Type.Integer({ minimum: 0 }),
  startTime: Type.Integer({ minimum: 0 }),
  /** Given where it listens on TCP. */
  port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535 })),
  /** None while the daemon merges layers of a volume that is not exported. */
  attachments: Type.Array(
    Type.Object({
      attachmentId: id,
      isReadOnly: Type.Boolean(),
      isWriteThrough: Type.Optional(Type.Boolean()),
      /** Over iSCSI; else over NBD. */
      isIscsi: Type.Optional(Type.Literal(true)),
      /** Opened by this process to replace the volume's content: alone, and gone with the process. */
      isWriter: Type.Optional(Type.Literal(true)),
      /** The only initiator that may log in for it. */
      initiator: Type.Optional(Type.String()),
    }),
  ),
});

const recordsSchema = Type.Object({ version: Type.Literal(VERSION), daemons: Type.Array(exportSchema) });

export type AttachmentRecord = ExportRecord["attachments"][number];

/** A volume that is to be served, and by which daemon it was last (FORMAT.md). */
export type ExportRecord = Readonly<Static<typeof exportSchema>>;

const read = (path: string): readonly ExportRecord[] => {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (Value.Check(recordsSchema, value)) return value.daemons;
  } catch {
    // Said below.
  }
  throw new RingsteadError(
    "records-damaged",
    `${path} does not say which volumes are exported: remove it to export none`,
  );
};

/** The written exports of a host. */
export class ExportRecords {
  readonly #path: string;
  readonly #records: Map<string, ExportRecord>;

  /** Errors: "records-damaged". */
  constructor(path: string) {
    this.#path = path;
    this.#records = new Map(read(path).map((record) => [record.volumeId, record]));
  }

  get all(): readonly ExportRecord[] {
    return [...this.#records.values()];
  }

  of(volumeId: string): ExportRecord | undefined {
    return this.#records.get(volumeId);
  }

  /** Returns once it is on the disk. */
  set(record: ExportRecord): void {
    this.#records.set(record.volumeId, record);
    this.#write();
  }

  delete(volumeId: string): void {
    if (this.#records.delete(volumeId)) this.#write();
  }

  #write(): void {
    replaceFile(this.#path, `${JSON.stringify({ version: VERSION, daemons: this.all }, undefined, 1)}\n`, 0o600);
  }
}
