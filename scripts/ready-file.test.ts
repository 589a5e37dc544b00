import { expect, it } from "vitest";
import { parseClusterFile, resolveConfig } from "../common/config.ts";
import { cloudsYamlText, openrcText, readyFile } from "./ready-file.ts";

const config = resolveConfig(parseClusterFile("port_offset = 100", "cluster.toml"), "/data", "local", "host");
const ready = readyFile({
  version: "1.2.3",
  config,
  adminPassword: "it's",
  s3: { accessKey: "a", secretKey: "s" },
  processes: [{ role: "supervisor", pid: 7, startTime: 42 }],
  unavailable: [
    { service: "block", reason: "not built", remedy: "later" },
    { service: "s3", reason: "not built", remedy: "later" },
  ],
  limited: [{ service: "object", reason: "writes are refused", remedy: "mount it" }],
});

it("ready.json has the keys of the contract, no endpoint of what does not run, and that of what refuses something", () => {
  expect(ready).toEqual({
    version: "1.2.3",
    pid: process.pid,
    region: "RegionOne",
    endpoints: {
      identity: "http://127.0.0.1:5100/v3",
      object: "http://127.0.0.1:8180/v1",
      image: "http://127.0.0.1:9392",
      compute: "http://127.0.0.1:8874/v2.1",
      network: "http://127.0.0.1:9796",
    },
    admin: { username: "admin", password: "it's", project: "admin", domain: "Default" },
    swiftAuthV1: { url: "http://127.0.0.1:8180/auth/v1.0", user: "admin:admin", key: "it's" },
    s3: { accessKey: "a", secretKey: "s" },
    processes: [{ role: "supervisor", pid: 7, startTime: 42 }],
    unavailable: [
      { service: "block", reason: "not built", remedy: "later" },
      { service: "s3", reason: "not built", remedy: "later" },
      { service: "object", reason: "writes are refused", remedy: "mount it" },
    ],
  });
});

it("openrc quotes what the shell would read, clouds.yaml what YAML would", () => {
  expect(openrcText(ready, undefined, "/d/clouds.yaml")).toContain(`export OS_PASSWORD='it'\\''s'\n`);
  expect(openrcText(ready, "/c.pem", "/d/clouds.yaml")).toContain("export OS_CACERT='/c.pem'\n");
  expect(cloudsYamlText(ready, undefined)).toContain('      password: "it\'s"\n');
  expect(cloudsYamlText(ready, undefined)).not.toContain("cacert");
});
