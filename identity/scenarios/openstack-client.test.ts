import { spawn } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { cleanEnvironment, TestInstallation } from "../../scripts/scenarios/installation.ts";
import { createServiceProviderFixture, whyNoSamlTools } from "../saml-fixture.ts";

const installation = new TestInstallation(["--only", "identity,object"]);

type Run = { readonly output: string; readonly errors: string };

/** One `openstack` process that is given commands line by line: starting it for each would take most of the test. */
const openstack = (commands: readonly string[], environment: Record<string, string> = {}): Promise<Run> =>
  new Promise((resolve, reject) => {
    const child = spawn("/usr/bin/python3", ["/usr/bin/openstack"], {
      env: {
        ...cleanEnvironment(),
        OS_CLIENT_CONFIG_FILE: join(installation.folder, "clouds.yaml"),
        OS_CLOUD: "ringstead",
        ...environment,
      },
    });
    let output = "";
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => void (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => void (errors += chunk.toString()));
    child.once("error", reject);
    child.once("close", () => resolve({ output: output.replaceAll("(openstack) ", ""), errors }));
    child.stdin.end(`${commands.join("\n")}\n`);
  });

/** The JSON values that commands with `-f json` printed, in order. */
const valuesOf = (output: string): unknown[] =>
  [...output.matchAll(/^(?:\[\]|\{\}|\{[\s\S]*?^\}|\[[\s\S]*?^\])$/gm)].map(([text]) => JSON.parse(text) as unknown);

const listOf = (value: unknown): readonly Record<string, unknown>[] => value as Record<string, unknown>[];
const thing = (value: unknown): Record<string, unknown> => value as Record<string, unknown>;

const all = async (commands: readonly string[], environment?: Record<string, string>): Promise<unknown[]> => {
  const { output, errors } = await openstack(commands, environment);
  expect(errors).toBe("");
  return valuesOf(output);
};

beforeAll(() => installation.up());
afterAll(() => installation[Symbol.asyncDispose]());

it("domains, projects, users and groups are made, found, changed and removed", async () => {
  const values = await all([
    "domain create --description first works -f json",
    "project create --domain works --description building hall -f json",
    "project create --domain works --parent hall corner -f json",
    "user create --domain works --project hall --password pw --email ada@example.org ada -f json",
    "group create --domain works crew -f json",
    "group add user --group-domain works --user-domain works crew ada",
    "group contains user --group-domain works --user-domain works crew ada",
    "user list --domain works -f json",
    "project list --domain works -f json",
    "project set --domain works --tag blue --property floor=2 hall",
    "project show --domain works hall -f json",
    "user set --domain works --name lovelace ada",
    "user show --domain works lovelace -f json",
    "group remove user --group-domain works --user-domain works crew lovelace",
    "user list --group crew --domain works -f json",
  ]);
  const [domain, hall, corner, ada, , users, projects, shown, renamed, members] = values;
  expect(thing(domain)).toMatchObject({ name: "works", enabled: true });
  expect(thing(corner)).toMatchObject({ parent_id: thing(hall)["id"], domain_id: thing(domain)["id"] });
  expect(listOf(users).map(({ Name }) => Name)).toEqual(["ada"]);
  expect(new Set(listOf(projects).map(({ Name }) => Name))).toEqual(new Set(["corner", "hall"]));
  expect(thing(shown)).toMatchObject({ tags: ["blue"], floor: "2" });
  expect(thing(renamed)).toMatchObject({ id: thing(ada)["id"], name: "lovelace", email: "ada@example.org" });
  expect(members).toEqual([]);
  const { errors } = await openstack(["domain delete works"]);
  expect(errors).toContain("disable");
  await all(["domain set --disable works", "domain delete works"]);
  const { errors: gone } = await openstack(["user show --domain works lovelace"]);
  expect(gone).not.toBe("");
});

it("roles are granted, inherited and implied, and the lists say so", async () => {
  const values = await all([
    "project create upper -f json",
    "project create --parent upper lower -f json",
    "user create --password pw worker -f json",
    "role create tester -f json",
    "implied role create --implied-role reader tester",
    "role add --project upper --user worker --inherited tester",
    "role add --project lower --user worker member",
    "role assignment list --user worker --names -f json",
    "role assignment list --user worker --project lower --effective --names -f json",
    "implied role list -f json",
  ]);
  const assignments = listOf(values[4]).map(
    ({ Role, Project, Inherited }) => `${String(Role)} ${String(Project)} ${String(Inherited)}`,
  );
  expect(assignments.toSorted()).toEqual(["member lower@Default false", "tester upper@Default true"]);
  const roles = new Set(listOf(values[5]).map(({ Role }) => Role));
  expect(roles).toEqual(new Set(["member", "reader", "tester"]));
  expect(listOf(values[6]).map((row) => row["Prior Role Name"])).toContain("tester");
  const lower = { OS_CLOUD: "", ...userEnvironment("worker", "lower") };
  expect(thing((await all(["token issue -f json"], lower))[0])).toHaveProperty("project_id");
  await all([
    "role remove --project lower --user worker member",
    "role remove --project upper --user worker --inherited tester",
  ]);
  expect((await openstack(["token issue"], lower)).errors).toContain("401");
});

const userEnvironment = (user: string, project: string) => ({
  OS_AUTH_URL: installation.ready().endpoints["identity"] ?? "",
  OS_USERNAME: user,
  OS_PASSWORD: "pw",
  OS_USER_DOMAIN_NAME: "Default",
  OS_PROJECT_NAME: project,
  OS_PROJECT_DOMAIN_NAME: "Default",
  OS_IDENTITY_API_VERSION: "3",
  OS_REGION_NAME: "RegionOne",
});

it("application credentials, EC2 keys, trusts, limits and the catalog are managed and used", async () => {
  const made = await all([
    "project create shop -f json",
    "user create --password pw seller -f json",
    "user create --password pw helper -f json",
    "role add --project shop --user seller member",
    "role add --project shop --user helper reader",
    "registered limit create --service swift --region RegionOne --default-limit 10 objects -f json",
    "limit create --project shop --service swift --region RegionOne --resource-limit 5 objects -f json",
    "service create --name archive --description tapes archive-store -f json",
    "endpoint create --region RegionOne archive-store public http://127.0.0.1:1/v1 -f json",
    "region create RegionTwo -f json",
    "role show member -f json",
  ]);
  // The client looks names up, which these users may not.
  const [shopId, sellerId, helperId] = [0, 1, 2].map((index) => String(thing(made[index])["id"]));
  const memberId = String(thing(made.at(-1))["id"]);
  const seller = { OS_CLOUD: "", ...userEnvironment("seller", "shop") };
  const own = await all(
    [
      "application credential create --role member till -f json",
      "application credential list -f json",
      "ec2 credentials create -f json",
      "ec2 credentials list -f json",
      `trust create --project ${shopId} --role ${memberId} --impersonate ${sellerId} ${helperId} -f json`,
      "limit list -f json",
      "catalog list -f json",
      "user password set --original-password pw --password pw2",
    ],
    seller,
  );
  const [till, tills, key, keys, trust, limits, catalog] = own;
  expect(listOf(catalog).map(({ Name }) => Name)).toContain("archive");
  expect(listOf(limits).map((row) => row["Resource Limit"])).toEqual([5]);
  expect([listOf(tills).length, listOf(keys).length]).toEqual([1, 1]);
  expect(listOf(keys)[0]).toMatchObject({ Access: thing(key)["access"], Secret: thing(key)["secret"] });
  const byCredential = {
    OS_CLOUD: "",
    OS_AUTH_TYPE: "v3applicationcredential",
    OS_AUTH_URL: seller.OS_AUTH_URL,
    OS_APPLICATION_CREDENTIAL_ID: String(thing(till)["id"]),
    OS_APPLICATION_CREDENTIAL_SECRET: String(thing(till)["secret"]),
    OS_REGION_NAME: "RegionOne",
    OS_IDENTITY_API_VERSION: "3",
  };
  expect(thing((await all(["token issue -f json"], byCredential))[0])["project_id"]).toBe(thing(made[0])["id"]);
  const helper = {
    OS_CLOUD: "",
    ...userEnvironment("helper", "shop"),
    OS_TRUST_ID: String(thing(trust)["id"]),
  };
  const { OS_PROJECT_NAME: _name, OS_PROJECT_DOMAIN_NAME: _domain, ...byTrust } = helper;
  expect(thing((await all(["token issue -f json"], byTrust))[0])["user_id"]).toBe(thing(made[1])["id"]);
  expect((await openstack(["token issue"], seller)).errors).toContain("401");
  const swift = await all(["container create trusted -f json", "container list -f json"], byTrust);
  expect(listOf(swift.at(-1)).map(({ Name }) => Name)).toEqual(["trusted"]);
});

it.skipIf(whyNoSamlTools() !== undefined)(
  "a user goes on to another cloud that trusts this one, also after the key of assertions was replaced",
  async () => {
    const identity = installation.ready().endpoints["identity"] ?? "";
    const metadata = async () => (await fetch(`${identity}/OS-FEDERATION/saml2/metadata`)).text();
    await using other = await createServiceProviderFixture(metadata);
    await all([
      "project create port -f json",
      "user create --password pw sailor -f json",
      "role add --project port --user sailor member",
      `service provider create --auth-url ${other.authUrl} --service-provider-url ${other.spUrl} abroad -f json`,
      "service provider set --enable abroad",
    ]);
    const abroad = {
      OS_CLOUD: "",
      ...userEnvironment("sailor", "port"),
      OS_SERVICE_PROVIDER: "abroad",
      OS_REMOTE_PROJECT_NAME: "theirs",
      OS_REMOTE_PROJECT_DOMAIN_NAME: "Default",
    };
    const there = { id: "of the other cloud", project_id: "p" };
    expect((await all(["token issue -f json"], abroad))[0]).toMatchObject(there);
    const rotated = await installation.command("identity", "rotate-saml-key", "--now");
    expect([rotated.code, rotated.output]).toEqual([0, expect.stringContaining("signs from")]);
    expect((await all(["token issue -f json"], abroad))[0]).toMatchObject(there);
    expect(other.accepted.map(({ name, attributes }) => [name, attributes["openstack_project"]])).toEqual([
      ["sailor", ["port"]],
      ["sailor", ["port"]],
    ]);
    expect((await installation.command("identity", "doctor")).code).toBe(0);
  },
);
