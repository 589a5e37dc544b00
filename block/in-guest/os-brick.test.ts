import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { connectionInfo } from "../core/connection-info.ts";
import { HostProcess } from "../host/scenarios/host-process.ts";
import {
  bytesOfDisk,
  command,
  GUEST_LIMIT_MS,
  sizeOfDisk,
  startInitiator,
  startUdev,
  writeToDisk,
} from "./guest-commands.ts";

const MIB = 1024 * 1024;

/** What Nova and Cinder do with an answer of os-initialize_connection; prints the disk, or its new size. */
const CONNECTOR = `
import json, sys
from oslo_config import cfg
from oslo_concurrency import lockutils
import os_brick
from os_brick.privileged import default
from os_brick.initiator import connector
what, file, folder = sys.argv[1:4]
cfg.CONF([], project='ringstead')
lockutils.set_defaults(folder)
if hasattr(os_brick, 'setup'): os_brick.setup(cfg.CONF)
default.set_client_mode(False)
data = json.load(open(file))['data']
brick = connector.InitiatorConnector.factory('ISCSI', '', use_multipath=False, device_scan_attempts=10)
if what == 'connect': print(json.dumps(brick.connect_volume(data)))
elif what == 'extend': print(json.dumps(brick.extend_volume(data)))
else: brick.disconnect_volume(data, json.loads(sys.argv[4]))
`;

beforeAll(async () => {
  const udev = await startUdev();
  const initiator = startInitiator();
  return async () => {
    await initiator[Symbol.asyncDispose]();
    await udev[Symbol.asyncDispose]();
  };
});

test("os-brick's connector takes an attachment's answer as it is: connects, sees a volume grow in use, disconnects", async () => {
  const host = new HostProcess(GUEST_LIMIT_MS);
  onTestFinished(() => host[Symbol.asyncDispose]());
  await host.start();
  const folder = mkdtempSync(join(tmpdir(), "rs-brick-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  const volumeId = await host.newVolume(64 * MIB);
  const attachmentId = randomUUID();
  const initiator = (await command("sed", "-n", "s/^InitiatorName=//p", "/etc/iscsi/initiatorname.iscsi")).trim();
  const wanted = { volumeId, attachmentId, transport: "iscsi", isReadOnly: false, initiator } as const;
  const opened = await host.host.exportVolume(wanted);
  const info = connectionInfo({ volumeId, exportId: attachmentId, isReadOnly: false, opened, qosSpecs: undefined });
  writeFileSync(join(folder, "info"), JSON.stringify(info), { mode: 0o600 });
  writeFileSync(join(folder, "brick.py"), CONNECTOR);
  const brick = async (...words: readonly string[]): Promise<string> => {
    const [what = "", ...rest] = words;
    const said = await command(
      "/usr/bin/python3",
      join(folder, "brick.py"),
      what,
      join(folder, "info"),
      folder,
      ...rest,
    );
    return said.trim().split("\n").at(-1) ?? "";
  };
  const device = await brick("connect");
  const { path } = JSON.parse(device) as { path: string };
  const bytes = randomBytes(4 * MIB);
  writeFileSync(join(folder, "bytes"), bytes);
  await writeToDisk(path, join(folder, "bytes"));
  await host.host.extendVolume(volumeId, 128 * MIB);
  expect(JSON.parse(await brick("extend"))).toBe(128 * MIB);
  expect(await sizeOfDisk(path)).toBe(128 * MIB);
  expect((await bytesOfDisk(path, 4 * MIB)).equals(bytes)).toBe(true);
  await brick("disconnect", device);
  await host.host.unexportVolume(volumeId, attachmentId);
});
