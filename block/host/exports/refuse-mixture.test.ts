import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { ExportTransport } from "../../volume-host.ts";
import type { ExportRecord } from "../store/export-records.ts";
import { refuseMixture } from "./refuse-mixture.ts";

const volumeId = randomUUID();

const recordOf = (transport: ExportTransport, isReadOnly: boolean): ExportRecord => ({
  role: `export:${volumeId}`,
  volumeId,
  pid: 2,
  startTime: 3,
  attachments: [{ attachmentId: randomUUID(), isReadOnly, ...(transport === "iscsi" ? { isIscsi: true } : {}) }],
});

test.each<[ExportTransport, ExportTransport]>([
  ["iscsi", "unix"],
  ["unix", "iscsi"],
])("who writes over %s has no writer over %s beside him, and readers may be there", (first, second) => {
  const wanted = (isReadOnly: boolean) => ({ volumeId, attachmentId: randomUUID(), transport: second, isReadOnly });
  expect(() => refuseMixture(recordOf(first, false), wanted(false))).toThrow("read-only alone");
  expect(() => refuseMixture(recordOf(first, false), wanted(true))).not.toThrow();
  expect(() => refuseMixture(recordOf(first, true), wanted(false))).not.toThrow();
  expect(() => refuseMixture(recordOf(first, true), wanted(true))).not.toThrow();
});

test("writers through one door go beside one another, and who is there already stays", () => {
  for (const transport of ["unix", "iscsi"] as const) {
    const record = recordOf(transport, false);
    const wanted = { volumeId, attachmentId: randomUUID(), transport, isReadOnly: false };
    expect(() => refuseMixture(record, wanted)).not.toThrow();
    const [own] = record.attachments;
    expect(() => refuseMixture(record, { ...wanted, attachmentId: own?.attachmentId ?? "" })).not.toThrow();
  }
});
