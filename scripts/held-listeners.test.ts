import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { freePorts } from "../common/free-ports.ts";
import type { BindAddress } from "../common/listeners.ts";
import { HeldListeners } from "./held-listeners.ts";
import { CHECKOUT } from "./up-options.ts";

/** Greets whoever connects with its name. */
const SERVER = `
  const { createServer } = await import("node:net");
  const { bindServer } = await import(${JSON.stringify(join(CHECKOUT, "common/listeners.ts"))});
  const [, name, address] = process.argv;
  await bindServer(createServer((socket) => socket.end(name)), JSON.parse(address));
  process.send("listens");
`;

const start = async (held: HeldListeners, name: string, address: BindAddress): Promise<ChildProcess> => {
  const { descriptors, environment } = held.handOver([address], 4);
  const child = spawn(process.execPath, ["--input-type=module", "-e", SERVER, name, JSON.stringify(address)], {
    stdio: ["ignore", "ignore", "inherit", "ipc", ...descriptors],
    env: { ...process.env, ...environment },
  });
  await once(child, "message");
  return child;
};

const end = async (child: ChildProcess): Promise<void> => {
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
};

/** Who greets. */
const greeting = (address: BindAddress): Promise<string> =>
  new Promise((resolve) => {
    const socket = connect(address);
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    socket.on("error", (error) => resolve(error.message));
    socket.on("end", () => resolve(text));
  });

test("nobody listens on a held address before a process does, and connections wait between two of them", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-held-"));
  const path = join(folder, "held.sock");
  for (const address of [{ host: "127.0.0.1", port: await freePorts(1) }, { path }]) {
    using held = new HeldListeners();
    await held.hold([address]);
    expect(await greeting(address)).toContain("ECONNREFUSED");
    const first = await start(held, "first", address);
    expect(await greeting(address)).toBe("first");
    await end(first);
    const waiting = [greeting(address), greeting(address)];
    await new Promise((resolve) => setTimeout(resolve, 200));
    const second = await start(held, "second", address);
    expect(await Promise.all(waiting)).toEqual(["second", "second"]);
    await end(second);
  }
  rmSync(folder, { recursive: true, force: true });
});

test("a held Unix socket can be opened by this user alone, takes the place of a stale one, and goes with the supervisor", async () => {
  const folder = mkdtempSync(join(tmpdir(), "ringstead-held-"));
  const path = join(folder, "held.sock");
  // A killed one leaves its file.
  const stale = new HeldListeners();
  await stale.hold([{ path }]);
  {
    using held = new HeldListeners();
    await held.hold([{ path }]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  }
  await expect.poll(() => statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  stale[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

test("an address that somebody else has, or that is not this machine's, is refused with words", async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", () => resolve()));
  const { port } = other.address() as AddressInfo;
  using held = new HeldListeners();
  await expect(held.hold([{ host: "127.0.0.1", port }])).rejects.toMatchObject({
    code: "port-refused",
    message: `cannot listen on tcp 127.0.0.1 ${port}: EADDRINUSE`,
  });
  await expect(held.hold([{ host: "192.0.2.1", port }])).rejects.toMatchObject({ code: "port-refused" });
  await new Promise((resolve) => other.close(resolve));
});
