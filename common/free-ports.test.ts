import { createServer } from "node:net";
import { expect, test } from "vitest";
import { PUBLIC_PORTS } from "./config.ts";
import { freePortOffset, freePorts } from "./free-ports.ts";

test("ports that were given out are free, and nobody is given them again", async () => {
  const firsts = await Promise.all(Array.from({ length: 200 }, () => freePorts(3)));
  const ports = firsts.flatMap((first) => [first, first + 1, first + 2]);
  expect(new Set(ports).size).toBe(600);
  for (const port of ports.slice(0, 20)) {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", () => resolve()));
    await new Promise((resolve) => server.close(resolve));
  }
});

test("offsets that were given out have no port in common", async () => {
  const offsets = [await freePortOffset(), await freePortOffset(), await freePortOffset()];
  const ports = offsets.flatMap((offset) => Object.values(PUBLIC_PORTS).map((port) => port + offset));
  expect(new Set(ports).size).toBe(ports.length);
  expect(Math.max(...ports)).toBeLessThan(32_768);
});
