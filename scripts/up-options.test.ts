import { expect, it } from "vitest";
import { withKeys } from "./data-folder.ts";
import { parseUpOptions } from "./up-options.ts";

it("every option of up becomes a key of cluster.toml, but not what holds for one run", () => {
  const options = parseUpOptions(
    "--data /d --detach --bind ::1 --public-url h --port-offset 5 --devices 3 --replicas 2 --only object --admin-password p --tls-cert /c --tls-key /k".split(
      " ",
    ),
  );
  expect(options).toEqual({
    dataDir: "/d",
    detach: true,
    only: ["object"],
    adminPassword: "p",
    keys: { bind: "::1", public_url: "h", port_offset: 5, devices: 3, replicas: 2, tls_cert: "/c", tls_key: "/k" },
  });
});

it.each([
  ["--prot-offset 5", "Unknown option '--prot-offset'"],
  ["--port-offset five", '--port-offset takes a whole number, not "five"'],
  ["--only identity,swift", 'there is no service "swift"'],
  ["--devices 4 --device /mnt/a", "exclude each other"],
  ["stray", "Unexpected argument 'stray'"],
])("refuses %s in one sentence", (text, message) => {
  expect(() => parseUpOptions(text.split(" "))).toThrow(message);
});

it("changes one line of cluster.toml and leaves the comments", () => {
  const before = "# mine\nport_offset = 1\n# why\nreplicas = 3\n\n[node.local]\nbind = '::1'\n";
  expect(withKeys(before, { port_offset: 2, devices: 5 }, "cluster.toml")).toBe(
    "# mine\nport_offset = 2\n# why\nreplicas = 3\n\ndevices = 5\n[node.local]\nbind = '::1'\n",
  );
});

it("writes the file anew where a key stands on several lines", () => {
  const after = withKeys("device = [\n  '/a',\n]\n", { device: ["/a", "/b"] }, "cluster.toml");
  expect(after).toContain('device = [ "/a", "/b" ]');
});

it("device paths take the place of a number of folders", () => {
  expect(withKeys("devices = 4\n", { device: ["/a"] }, "cluster.toml")).not.toContain("devices");
});
