import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { expect, onTestFinished, test } from "vitest";
import { NodeNetwork, whyNoNodeNetwork } from "./node-network.ts";
import { runCommand } from "./run-command.ts";

const PORT = 7000;
const obstacle = whyNoNodeNetwork();

/** Says what datagrams it hears, one a line. */
const LISTENER = `
const socket = require("node:dgram").createSocket("udp4");
socket.on("message", (bytes) => console.log(String(bytes)));
socket.bind(${PORT}, () => console.log("listening"));
`;
/** Sends a datagram, and resolves when the kernel has it. */
const SENDER = `
const [address, text] = process.argv.slice(1);
const socket = require("node:dgram").createSocket("udp4");
socket.send(text, ${PORT}, address, () => socket.close());
`;

/** What a node hears, from now on. */
const listenAt = async (network: NodeNetwork, node: string): Promise<string[]> => {
  const [command, ...words] = network.on(node);
  const child = spawn(command, [...words, process.execPath, "-e", LISTENER], { stdio: ["ignore", "pipe", "inherit"] });
  onTestFinished(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  const heard: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => heard.push(line));
  await expect.poll(() => heard, { timeout: 20_000 }).toEqual(["listening"]);
  return heard;
};

test.skipIf(obstacle !== undefined)(
  "two networks with the same addresses are there at once, and in one of them each direction is cut by itself",
  async () => {
    const make = async (): Promise<NodeNetwork> => {
      const network = await NodeNetwork.make(["a", "b"]);
      onTestFinished(() => network[Symbol.asyncDispose]());
      return network;
    };
    const [network, other] = await Promise.all([make(), make()]);
    const [a, b, otherB] = [await listenAt(network, "a"), await listenAt(network, "b"), await listenAt(other, "b")];
    const send = async (from: NodeNetwork, node: string, to: string, text: string): Promise<void> => {
      const [command, ...words] = from.on(node);
      const sent = await runCommand(command, [...words, process.execPath, "-e", SENDER, from.addressOf(to), text]);
      expect([sent.code, sent.output]).toEqual([0, ""]);
    };
    await network.cut("a", "b");
    await send(network, "a", "b", "lost");
    await send(network, "b", "a", "one way");
    await send(other, "a", "b", "elsewhere");
    await network.mend();
    await network.part("a");
    await send(network, "b", "a", "lost too");
    await network.mend();
    await network.slow("a", 1000);
    await send(network, "a", "b", "slow");
    await network.mend();
    await send(network, "a", "b", "well");
    await send(network, "b", "a", "well");
    await send(other, "a", "b", "well");
    await expect
      .poll(() => [a, b, otherB].map((heard) => heard.at(-1)), { timeout: 20_000 })
      .toEqual(Array(3).fill("well"));
    expect(a).toEqual(["listening", "one way", "well"]);
    expect(b).toEqual(["listening", "slow", "well"]);
    expect(otherB).toEqual(["listening", "elsewhere", "well"]);
  },
);
