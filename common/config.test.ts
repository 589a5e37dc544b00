import { describe, expect, it } from "vitest";
import { parseClusterFile, publicEndpoint, resolveConfig, rpcAddress, rpcListenAddress } from "./config.ts";

const parsed = (text: string) =>
  resolveConfig(parseClusterFile(text, "cluster.toml"), "/data", "local", "host.example");

describe("cluster.toml", () => {
  it("has a default for every key", () => {
    expect(parsed("")).toEqual({
      node: "local",
      bind: "127.0.0.1",
      publicUrl: "http://127.0.0.1",
      portOffset: 0,
      region: "RegionOne",
      devices: ["/data/devices/d1", "/data/devices/d2", "/data/devices/d3", "/data/devices/d4"],
      replicas: 3,
      partitionPower: 10,
      metricsBind: "127.0.0.1:9187",
      services: ["identity", "object", "image", "block", "compute", "network"],
      detach: false,
      identity: {},
      block: {},
      revocationGraceSeconds: 300,
      scrubDays: 7,
      reclaimDays: 7,
      shardNames: 1_000_000,
      storagePolicies: [{ name: "Policy-0", index: 0, consistency: "strong", isDefault: true }],
    });
  });

  it("has storage policies by their numbers, the first one always among them, one of them the default", () => {
    const text =
      "[storage_policy.Fast]\nindex = 3\nconsistency = 'available'\ndefault = true\n[storage_policy.gold]\nindex = 1";
    expect(parsed(text).storagePolicies).toEqual([
      { name: "Policy-0", index: 0, consistency: "strong", isDefault: false },
      { name: "gold", index: 1, consistency: "strong", isDefault: false },
      { name: "Fast", index: 3, consistency: "available", isDefault: true },
    ]);
    expect(parsed("[storage_policy.safe]\nindex = 0").storagePolicies).toEqual([
      { name: "safe", index: 0, consistency: "strong", isDefault: true },
    ]);
  });

  it.each([
    [
      "[storage_policy.a]\nindex = 1\n[storage_policy.b]\nindex = 1",
      "storage_policy.b.index: another policy has the number 1",
    ],
    ["[storage_policy.a]\nindex = 1\n[storage_policy.A]\nindex = 2", "storage_policy: the name A is given twice"],
    [
      "[storage_policy.a]\nindex = 0\ndefault = true\n[storage_policy.b]\nindex = 1\ndefault = true",
      "storage_policy: a and b are both the default",
    ],
    ["[storage_policy.a]\nindex = 256", "cluster.toml: storage_policy.a.index must be <= 255, not 256"],
  ])("refuses policies that do not fit together: %s", (text, message) => {
    expect(() => parsed(text)).toThrow(message);
  });

  it.each([
    "[storage_policy.a]\nconsistency = 'strong'",
    "[storage_policy.a]\nindex = 1\nconsistency = 'eventual'",
    "[storage_policy.'a b']\nindex = 1",
  ])("refuses a policy that says too little, or too much: %s", (text) => {
    expect(() => parsed(text)).toThrow("storage_policy");
  });

  it.each([
    ["bnid = '0.0.0.0'", "cluster.toml: unknown key bnid"],
    ["[node.n1]\nreplicas = 3", "cluster.toml: unknown key node.n1.replicas"],
    ["port_offset = '20k'", 'cluster.toml: port_offset must be integer, not "20k"'],
    ["replicas = 1.5", "cluster.toml: replicas must be integer, not 1.5"],
    ["devices = 0", "cluster.toml: devices must be >= 1, not 0"],
    ["[database]\nurl = 'postgresql://u@h/d'\npool = 3", "cluster.toml: unknown key database.pool"],
    ["[database]\nurl = 'postgresql://u@h/d'\npool_size = 0", "cluster.toml: database.pool_size must be >= 1, not 0"],
    ["device = ['relative']", 'cluster.toml: device.0 must match pattern "^/", not "relative"'],
    [
      "only = ['swift']",
      'cluster.toml: only.0 must be one of identity, object, image, block, compute, network, not "swift"',
    ],
  ])("refuses %j in words", (text, message) => {
    expect(() => parsed(text)).toThrow(message);
  });

  it("names the line of what is no TOML", () => {
    expect(() => parsed("= 1")).toThrow(/cluster\.toml is not TOML:.*1: {2}= 1/s);
  });

  it("refuses a certificate without its key", () => {
    expect(() => parsed("tls_cert = '/c.pem'")).toThrow("belong together");
  });

  it("lets a node's table stand before the top level", () => {
    const config = parsed("bind = '10.0.0.1'\n[node.local]\nbind = '10.0.0.2'\n[node.other]\nbind = '10.0.0.3'");
    expect(config.bind).toBe("10.0.0.2");
  });

  it("moves every port with the offset, that of metrics too", () => {
    const config = parsed("port_offset = 20000");
    expect(publicEndpoint(config, "object")).toBe("http://127.0.0.1:28080");
    expect(config.metricsBind).toBe("127.0.0.1:29187");
  });

  it("names the host where the bind address is every address", () => {
    expect(parsed("bind = '0.0.0.0'").publicUrl).toBe("http://host.example");
    expect(parsed("bind = '::1'").publicUrl).toBe("http://[::1]");
    expect(parsed("public_url = 'https://store.example/'").publicUrl).toBe("http://store.example");
  });

  it("always has identity among the services", () => {
    expect(parsed("only = ['object']").services).toEqual(["identity", "object"]);
  });

  const THREE = "rpc_port = 7000\n[node.a]\naddress = '10.0.0.1'\n[node.b]\nrpc_port = 7100\n[node.c]\n";
  const at = (node: string, text = THREE) =>
    resolveConfig(parseClusterFile(text, "cluster.toml"), "/data", node, "host");

  it("tells a node of several where the others are, and who has identity", () => {
    const config = at("b");
    expect(config.cluster?.identityNode).toBe("a");
    expect(rpcAddress(config, "a", "storage-node")).toEqual({ host: "10.0.0.1", port: 7000 });
    expect(rpcAddress(config, "b", "control")).toEqual({ host: "b", port: 7101 });
    expect(rpcAddress(config, "d", "storage-node")).toBeUndefined();
    expect(rpcAddress(at("a", "[node.a]\n[node.b]\n"), "b", "storage-node")).toEqual({ host: "b", port: 6200 });
  });

  it("listens for other nodes on the address it was given, and on every interface where that is a name", () => {
    expect(rpcListenAddress(at("a"), "storage-node")).toEqual({ host: "10.0.0.1", port: 7000 });
    expect(rpcListenAddress(at("b"), "storage-node")).toEqual({ host: "::", port: 7100 });
  });

  it("gives one machine no TCP port for what is internal", () => {
    expect(at("local").cluster).toBeUndefined();
    expect(at("a", "[node.a]\naddress = '10.0.0.1'").cluster).toBeUndefined();
    expect(rpcListenAddress(at("local"), "storage-node")).toBeUndefined();
  });

  it("refuses an identity_node without a table", () => {
    expect(() => at("a", `identity_node = "x"\n${THREE}`)).toThrow("identity_node: there is no table [node.x]");
  });
});

describe("RPC in TLS", () => {
  const nodes = "[node.a]\naddress = '10.0.0.1'\n[node.b]\naddress = '10.0.0.2'\n";
  const files = "rpc_tls_cert = '/etc/rpc.pem'\nrpc_tls_key = '/etc/rpc.key'\nrpc_tls_ca = '/etc/ca.pem'\n";
  const of = (text: string, node: string) => resolveConfig(parseClusterFile(text, "cluster.toml"), "/data", node, "x");

  it("goes by the cluster key where cluster.toml names no certificates, and by this node's own where it does", () => {
    expect(rpcAddress(of(nodes, "a"), "b", "storage-node")).toEqual({ host: "10.0.0.2", port: 6200 });
    const tls = { cert: "/etc/rpc.pem", key: "/etc/rpc.key", ca: "/etc/ca.pem" };
    const config = of(`${files}${nodes}rpc_tls_cert = '/etc/b.pem'\n`, "a");
    expect(rpcAddress(config, "b", "control")).toEqual({ host: "10.0.0.2", port: 6201, tls });
    expect(rpcListenAddress(config, "storage-node")).toEqual({ host: "10.0.0.1", port: 6200, tls });
    const own = of(`${files}${nodes}rpc_tls_cert = '/etc/b.pem'\n`, "b");
    expect(rpcListenAddress(own, "storage-node")?.tls).toEqual({ ...tls, cert: "/etc/b.pem" });
  });

  it("is refused with one of the three files missing", () => {
    expect(() => of(`rpc_tls_cert = '/etc/rpc.pem'\n${nodes}`, "a")).toThrow(
      "rpc_tls_cert, rpc_tls_key and rpc_tls_ca",
    );
  });
});
