import { describe, expect, it } from "vitest";
import { parseClusterFile, publicEndpoint, resolveConfig } from "./config.ts";

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
    });
  });

  it.each([
    ["bnid = '0.0.0.0'", "cluster.toml: unknown key bnid"],
    ["[node.n1]\nreplicas = 3", "cluster.toml: unknown key node.n1.replicas"],
    ["port_offset = '20k'", 'cluster.toml: port_offset must be integer, not "20k"'],
    ["replicas = 1.5", "cluster.toml: replicas must be integer, not 1.5"],
    ["devices = 0", "cluster.toml: devices must be >= 1, not 0"],
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
});
