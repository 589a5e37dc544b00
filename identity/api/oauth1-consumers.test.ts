import { afterAll, beforeAll, expect, test } from "vitest";
import { at, createTestClient, textAt } from "../test-client.ts";
import { createTestInstallation } from "../test-service.ts";

const COLLECTION = "/v3/OS-OAUTH1/consumers";

const installation = createTestInstallation();
let base = "";
let token = "";
const { call, adminToken } = createTestClient(() => base);

beforeAll(async () => {
  base = `http://127.0.0.1:${(await installation.start()).port}`;
  token = await adminToken();
});

afterAll(() => installation[Symbol.asyncDispose]());

const newConsumer = async (): Promise<string> =>
  textAt(await call("POST", COLLECTION, { token, body: { consumer: { description: "made" } } }), "consumer.id");

test("changes of one consumer at the same moment all hold", async () => {
  const id = await newConsumer();
  const names = Array.from({ length: 8 }, (_, index) => `member-${index}`);
  const answers = await Promise.all(
    names.map((name) => call("PATCH", `${COLLECTION}/${id}`, { token, body: { consumer: { [name]: name } } })),
  );
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
  const shown = at(await call("GET", `${COLLECTION}/${id}`, { token }), "consumer");
  expect(shown).toMatchObject({ description: "made", ...Object.fromEntries(names.map((name) => [name, name])) });
});

test("a consumer that is removed while it is changed stays removed", async () => {
  const id = await newConsumer();
  const change = (index: number) =>
    call("PATCH", `${COLLECTION}/${id}`, { token, body: { consumer: { description: `${index}` } } });
  const [removed, ...changed] = await Promise.all([
    call("DELETE", `${COLLECTION}/${id}`, { token }),
    ...Array.from({ length: 4 }, (_, index) => change(index)),
  ]);
  expect(removed?.status).toBe(204);
  expect(new Set(changed.map(({ status }) => status)).isSubsetOf(new Set([200, 404]))).toBe(true);
  expect((await call("GET", `${COLLECTION}/${id}`, { token })).status).toBe(404);
});
