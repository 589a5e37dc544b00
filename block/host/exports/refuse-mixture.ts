import { RingsteadError } from "../../../common/errors.ts";
import type { ExportTransport, WantedExport } from "../../volume-host.ts";
import type { AttachmentRecord, ExportRecord } from "../store/export-records.ts";

const WORDS: Readonly<Record<ExportTransport, string>> = {
  unix: "on a Unix socket",
  tcp: "over TCP",
  iscsi: "over iSCSI",
};

const transportOf = (record: ExportRecord, { isIscsi }: AttachmentRecord): ExportTransport =>
  isIscsi === true ? "iscsi" : record.port === undefined ? "unix" : "tcp";

const modeWords = ({ isReadOnly }: AttachmentRecord): string => (isReadOnly ? "read-only" : "for writing");

/** A volume whose content is being replaced is nobody else's meanwhile, and one that somebody uses is not replaced. Errors: "volume-in-use". */
export const refuseCompany = (
  record: ExportRecord,
  { volumeId, attachmentId }: WantedExport,
  isWriter: boolean,
): void => {
  const others = record.attachments.filter((one) => one.attachmentId !== attachmentId);
  if (others.some((one) => one.isWriter === true))
    throw new RingsteadError("volume-in-use", `volume ${volumeId} is being restored`);
  if (isWriter && others.length > 0)
    throw new RingsteadError("volume-in-use", `volume ${volumeId} is exported, and not restored under who uses it`);
};

/** What an attachment was opened with it keeps. */
const refuseChange = (own: AttachmentRecord, wanted: WantedExport, refuse: (why: string) => never): void => {
  if (own.isReadOnly !== wanted.isReadOnly)
    refuse(`is exported ${modeWords(own)} to this attachment: unexport that first`);
  if ((own.isWriteThrough ?? false) !== (wanted.isWriteThrough ?? false))
    refuse(`is exported ${own.isWriteThrough === true ? "with" : "without"} write-through: unexport that first`);
  if (own.initiator !== wanted.initiator)
    refuse(`is exported to ${own.initiator ?? "any initiator"} with this attachment: unexport that first`);
};

/**
 * The front of an iSCSI disk keeps what was answered and not flushed, and gives it to the next daemon: over what others wrote and flushed meanwhile, to the
 * same places. So nobody writes beside it, and it does not write beside others.
 */
const refuseSecondWriter = (
  record: ExportRecord,
  { attachmentId, transport, isReadOnly }: WantedExport,
  refuse: (why: string) => never,
): void => {
  if (isReadOnly) return;
  const other = record.attachments.find(
    (one) =>
      one.attachmentId !== attachmentId &&
      !one.isReadOnly &&
      (transportOf(record, one) === "iscsi") !== (transport === "iscsi"),
  );
  if (other !== undefined)
    refuse(
      `is exported ${WORDS[transportOf(record, other)]} for writing: beside that it is exported ${WORDS[transport]} read-only alone`,
    );
};

/**
 * One daemon listens at one place, over TCP whoever has one of its keys may open any of its exports, and over iSCSI a volume is one disk, which
 * keeps writes: attachments of one volume that differ in that are refused rather than served less strictly than they should be. Errors: "port-unavailable".
 */
export const refuseMixture = (record: ExportRecord, wanted: WantedExport): void => {
  const refuse = (why: string): never => {
    throw new RingsteadError("port-unavailable", `volume ${wanted.volumeId} ${why}`);
  };
  const own = record.attachments.find(({ attachmentId }) => attachmentId === wanted.attachmentId);
  if (own !== undefined && transportOf(record, own) !== wanted.transport)
    refuse(`is exported ${WORDS[transportOf(record, own)]} to this attachment: unexport that first`);
  const apart = record.attachments.find((one) => (transportOf(record, one) === "tcp") !== (wanted.transport === "tcp"));
  if (apart !== undefined) refuse(`is exported ${WORDS[transportOf(record, apart)]} already: unexport that first`);
  if (own !== undefined) refuseChange(own, wanted, refuse);
  else refuseSecondWriter(record, wanted, refuse);
  if (wanted.transport === "unix") return;
  const alike = record.attachments.filter((one) => transportOf(record, one) === wanted.transport);
  const differing = alike.find(({ isReadOnly }) => isReadOnly !== wanted.isReadOnly);
  if (differing !== undefined)
    refuse(`is exported ${WORDS[wanted.transport]} ${modeWords(differing)}: attachments must not differ in that`);
  const isWriteThrough = wanted.isWriteThrough ?? false;
  if (wanted.transport === "iscsi" && alike.some((one) => (one.isWriteThrough ?? false) !== isWriteThrough))
    refuse(
      `is exported over iSCSI ${isWriteThrough ? "without" : "with"} write-through: attachments must not differ in that`,
    );
};
