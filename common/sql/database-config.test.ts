import { describe, expect, it } from "vitest";
import { parseClusterFile, resolveConfig } from "../config.ts";

const serverOf = (lines: string) =>
  resolveConfig(parseClusterFile(`[database]\n${lines}`, "cluster.toml"), "/data", "local", "host.example").database;

const messageOfFailure = (lines: string): string => {
  try {
    serverOf(lines);
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
  return "accepted";
};

describe("[database]", () => {
  it("has a default for all but the server's address", () => {
    expect(serverOf("url = 'postgresql://keystone@db.example/cloud'")).toEqual({
      host: "db.example",
      port: 5432,
      user: "keystone",
      database: "cloud",
      poolSize: 10,
      password: expect.any(Function) as unknown,
    });
  });

  it("takes a port, an address, a Unix socket, escapes and an authority", () => {
    expect(serverOf("url = 'postgres://a%40b@[::1]:6000/c%20d'")).toMatchObject({
      host: "::1",
      port: 6000,
      user: "a@b",
      database: "c d",
    });
    const socket = { host: "/run/postgresql", port: 5433, user: "u", database: "d" };
    expect(serverOf("url = 'postgresql:///d?host=/run/postgresql&user=u&port=5433'")).toMatchObject(socket);
    expect(serverOf("url = 'postgresql://u@%2Frun%2Fpostgresql:5433/d'")).toMatchObject(socket);
    expect(serverOf("url = 'postgresql://u@h/d'\ntls_ca = '/etc/ca.pem'\npool_size = 3")).toMatchObject({
      tlsCa: "/etc/ca.pem",
      poolSize: 3,
    });
  });

  it("gives the password to who asks, and to no log", () => {
    const server = serverOf("url = 'postgresql://u:top%20secret@h/d'");
    expect(server?.password()).toBe("top secret");
    expect(JSON.stringify(server)).not.toMatch(/secret/);
  });

  it.each([
    ["url = 'postgresql://u:secret@/d'", /must be postgresql:/],
    ["url = 'mysql://u:secret@h/d'", /must be postgresql:/],
    ["url = 'postgresql://u:secret@h'", /names no database/],
    ["url = 'postgresql://u:secret@h/a/b'", /names no database/],
    ["url = 'postgresql://:secret@h/d'", /names no user/],
    ["url = 'postgresql:///d?user=u'", /names no host/],
    ["url = 'postgresql://u:secret%@h/d'", /a % that begins no escape/],
    ["url = 'postgresql:///d?host=/run&user=u&port=0'", /port must be 1 to 65535/],
    ["url = 'postgresql://u:secret@h/d?sslmode=require'", /TLS has the key tls_ca/],
    ["url = 'postgresql:///d?host=/run&user=u'\ntls_ca = 'ca.pem'", /a Unix socket has no TLS/],
    ["url = 'postgresql://u:secret@h/d'\npassword_file = 'p'", /keep one/],
    ["url = ['postgresql://u:secret@h/d']", /database\.url must be string/],
    ["url = 'postgresql://u:secret@h/d\nuser = 'u'", /is not TOML/],
    ["pool_size = 3", /url/],
  ])("refuses %j without telling a password", (lines, message) => {
    const said = messageOfFailure(lines);
    expect(said).toMatch(message);
    expect(said).not.toMatch(/secret/);
  });
});
