import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cleanEnvironment, TestInstallation } from "./installation.ts";
import { isEverything } from "./is-everything.ts";
import { ObjectClient } from "./object-client.ts";
import { runCommand } from "./run-command.ts";

const MEGABYTE = 1024 * 1024;
const IMAGE_PARTS = isEverything ? 12 : 5;
const IMAGE_BYTES = IMAGE_PARTS * 25 * MEGABYTE;
/** Most of the time goes into clients in Python, file by file. */
const FILES_WANTED = isEverything ? 2_000 : 600;
/** So many are acknowledged when everything is killed. */
const FILES_BEFORE_KILL = FILES_WANTED / 5;

const installation = new TestInstallation();
let work: string;
/** Real files, copied so that nothing changes them meanwhile. */
let tree: string;
let expected: ReadonlyMap<string, string>;

/** Path and checksum of every regular file below a folder. */
const digestsOf = (folder: string): Map<string, string> =>
  new Map(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [relative(folder, path), createHash("md5").update(readFileSync(path)).digest("hex")];
      }),
  );

/** Regular files of /usr/share until there are enough: documentation, Perl, time zones, whatever this machine has. */
const collectTree = (target: string): void => {
  let count = 0;
  for (const source of ["zoneinfo", "perl", "mime", "i18n", "doc", "man", "vim"].map((name) => `/usr/share/${name}`)) {
    if (count >= FILES_WANTED) return;
    let paths: string[];
    try {
      paths = readdirSync(source, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name));
    } catch {
      continue;
    }
    const taken = paths.slice(0, FILES_WANTED);
    for (const path of taken) cpSync(path, join(target, path), { recursive: true });
    count += taken.length;
  }
};

/** A disk image: holes, and random parts at odd places, none of them aligned to a block. */
const makeImage = (path: string): string => {
  const file = openSync(path, "w");
  ftruncateSync(file, IMAGE_BYTES);
  for (let part = 0; part < IMAGE_PARTS; part++)
    writeSync(file, randomBytes(MEGABYTE + part * 137), 0, undefined, part * 24 * MEGABYTE + part * 4099);
  closeSync(file);
  return execFileSync("md5sum", [path], { encoding: "utf8" }).slice(0, 32);
};

const rclone = (...words: string[]) => {
  const { url, user, key } = installation.ready().swiftAuthV1;
  const remote = { TYPE: "swift", AUTH: url, USER: user, KEY: key, CHUNK_SIZE: "1G" };
  const environment = Object.entries(remote).map(([name, value]) => [`RCLONE_CONFIG_RINGSTEAD_${name}`, value]);
  return runCommand("rclone", ["--config", "/dev/null", ...words], {
    env: { ...cleanEnvironment(), ...Object.fromEntries(environment) },
  });
};

const openstack = (...words: string[]) =>
  runCommand("openstack", ["--os-cloud", "ringstead", ...words], {
    env: { ...cleanEnvironment(), OS_CLIENT_CONFIG_FILE: join(installation.folder, "clouds.yaml") },
  });

const curl = async (path: string, ...words: string[]) => {
  const { url, token } = await ObjectClient.login(installation.ready().swiftAuthV1);
  const headers = ["-H", `X-Auth-Token: ${token}`];
  return runCommand("curl", ["-sSf", ...headers, ...words, `${url}${path}`], {
    env: cleanEnvironment(),
  });
};

beforeAll(async () => {
  work = mkdtempSync(join(tmpdir(), "ringstead-files-"));
  tree = join(work, "tree");
  mkdirSync(tree);
  collectTree(tree);
  expected = digestsOf(tree);
  await installation.up();
});

afterAll(async () => {
  await installation[Symbol.asyncDispose]();
  rmSync(work, { recursive: true, force: true });
});

test("the swift client is cut off by SIGKILL of everything, and each file that it said was stored is there, whole", async () => {
  expect(expected.size).toBeGreaterThanOrEqual(FILES_WANTED);
  const { url, user, key } = installation.ready().swiftAuthV1;
  const environment = { ...cleanEnvironment(), ST_AUTH: url, ST_USER: user, ST_KEY: key };
  const client = spawn("swift", ["upload", "--object-threads", "4", "--retries", "0", "swift", "."], {
    cwd: tree,
    env: environment,
    stdio: ["ignore", "pipe", "ignore"],
  });
  let told = "";
  client.stdout.on("data", (chunk: Buffer) => {
    told += chunk.toString();
  });
  const ended = new Promise((resolve) => client.once("close", resolve));
  await expect
    .poll(() => told.split("\n").length, { timeout: 120_000, interval: 20 })
    .toBeGreaterThan(FILES_BEFORE_KILL);
  await installation.crash();
  client.kill("SIGKILL");
  await ended;
  // The last line may be torn; each whole one names a file whose PUT was answered.
  const acknowledged = told
    .split("\n")
    .slice(0, -1)
    .map((line) => line.replace(/^\.\//, ""))
    .filter((line) => expected.has(line));
  expect(acknowledged.length).toBeGreaterThan(0.75 * FILES_BEFORE_KILL);
  expect(acknowledged.length).toBeLessThan(expected.size);
  const rows = JSON.parse((await curl("/swift?format=json&limit=10000")).output) as { name: string; hash: string }[];
  const stored = new Map(rows.map(({ name, hash }) => [name, hash]));
  for (const path of acknowledged) expect(stored.get(path), path).toBe(expected.get(path));
  // What was stored without being told is whole too, or not there.
  for (const [name, hash] of stored) expect(hash, name).toBe(expected.get(name));
});

test("the swift client then stores all of it, and after another SIGKILL of everything each byte comes back", async () => {
  await installation.client("swift", ["upload", "--changed", "--object-threads", "8", "swift", "."], tree);
  await installation.crash();
  const copy = join(work, "swift-copy");
  await installation.client("swift", ["download", "swift", "--output-dir", copy, "--object-threads", "8"], work);
  expect(digestsOf(copy)).toEqual(expected);
});

test("rclone copies the tree, checks it byte by byte, and a backup taken under that load can be restored", async () => {
  const copying = rclone("copy", tree, "ringstead:rclone", "--transfers", "8", "--no-traverse");
  const backup = join(work, "backup");
  expect(await installation.command("backup", backup)).toMatchObject({ code: 0 });
  expect(await copying).toMatchObject({ code: 0 });
  await installation.crash();
  const check = await rclone("check", tree, "ringstead:rclone", "--download", "--checkers", "8", "--size-only=false");
  expect(check.output).toContain("0 differences found");
  expect(check.code).toBe(0);
  expect((await installation.command("down")).code).toBe(0);
  expect(await installation.command("restore", backup)).toMatchObject({ code: 0 });
  await installation.up();
  const listing = await curl("/rclone?format=json&limit=10000");
  expect((JSON.parse(listing.output) as unknown[]).length).toBe(expected.size);
});

test("the openstack client stores and saves a folder's files", async () => {
  const names = [...expected.keys()].filter((path) => /^[\w./-]+$/.test(path)).slice(0, 40);
  expect((await openstack("container", "create", "openstack")).code).toBe(0);
  const stored = await runCommand("openstack", ["--os-cloud", "ringstead", "object", "create", "openstack", ...names], {
    cwd: tree,
    env: { ...cleanEnvironment(), OS_CLIENT_CONFIG_FILE: join(installation.folder, "clouds.yaml") },
  });
  expect(stored.code).toBe(0);
  const listed = await openstack("object", "list", "openstack", "-f", "value");
  expect(listed.output.trim().split("\n").toSorted()).toEqual(names.toSorted());
  const copy = join(work, "openstack-copy");
  mkdirSync(copy);
  const first = names[0]!;
  expect((await openstack("object", "save", "openstack", first, "--file", join(copy, "one"))).code).toBe(0);
  expect(digestsOf(copy).get("one")).toBe(expected.get(first));
});

test("a sparse disk image goes in with swift and with rclone, and comes back whole and in ranges, after a SIGKILL too", async () => {
  const image = join(work, "disk.img");
  const digest = makeImage(image);
  await installation.client("swift", ["upload", "images", "disk.img"], work);
  expect((await rclone("copyto", image, "ringstead:images/rclone.img")).code).toBe(0);
  await installation.crash();
  const source = openSync(image, "r");
  for (const name of ["disk.img", "rclone.img"]) {
    const back = join(work, `back-${name}`);
    expect((await curl(`/images/${name}`, "-o", back)).code).toBe(0);
    expect(execFileSync("md5sum", [back], { encoding: "utf8" }).slice(0, 32), name).toBe(digest);
    rmSync(back);
    for (const [from, length] of [
      [24 * MEGABYTE + 4000, 70_000],
      [IMAGE_BYTES - 1000, 1000],
      [65_535, 3 * MEGABYTE + 2],
    ] as const) {
      const part = join(work, "part");
      const asked = await curl(
        `/images/${name}`,
        "-r",
        `${from}-${from + length - 1}`,
        "-o",
        part,
        "-w",
        "%{http_code}",
      );
      expect(asked.output).toBe("206");
      const wanted = Buffer.alloc(length);
      readSync(source, wanted, 0, length, from);
      expect(readFileSync(part).equals(wanted), `${name} from ${from}`).toBe(true);
    }
  }
  closeSync(source);
});
