import { expect, test } from "vitest";
import type { SignedRequest } from "../core/authentication-request.ts";
import { isSignedWith, oauthParameters, oauthSignature, signatureBase } from "./oauth1-signature.ts";

const request = (change: Partial<SignedRequest>): SignedRequest => ({
  method: "POST",
  origin: "https://photos.example.net",
  path: "/initiate",
  query: [],
  authorization: undefined,
  ...change,
});

const parametersOf = (header: string) => oauthParameters(header) ?? new Map<string, string>();

test("a request that oauthlib signed for Keystone passes, also where TLS ended before this server", () => {
  const parameters = parametersOf(
    'OAuth oauth_nonce="47567714208365036371795313164", oauth_timestamp="1795313164", oauth_version="1.0", oauth_signature_method="HMAC-SHA1", oauth_consumer_key="15ef2cb90d9949779c16d49f85d6d3eb", oauth_callback="oob", oauth_signature="6Yu2AY%2Fh1TrQxhqugZYJjevnBeo%3D"',
  );
  const signed = request({ origin: "http://127.0.0.1:15001", path: "/v3/OS-OAUTH1/request_token" });
  const secrets = { consumer: "8ef850e5d17042eca06984f2c8a4e692", token: "" };
  expect(isSignedWith(signed, parameters, secrets)).toBe(true);
  expect(isSignedWith({ ...signed, path: "/v3/OS-OAUTH1/access_token" }, parameters, secrets)).toBe(false);
  expect(isSignedWith({ ...signed, query: [["a", "b"]] }, parameters, secrets)).toBe(false);
  expect(isSignedWith({ ...signed, origin: undefined }, parameters, secrets)).toBe(false);
  expect(isSignedWith(signed, parameters, { ...secrets, token: "x" })).toBe(false);
  const overTls = new Map(parameters);
  overTls.set("oauth_signature", oauthSignature(signed, "https://127.0.0.1:15001", overTls, secrets) ?? "");
  expect(isSignedWith(signed, overTls, secrets)).toBe(true);
});

test("the base has the parameters of query and header sorted after encoding, and no default port", () => {
  // The example of RFC 5849, section 3.4.1, with the parameters of its body in the query.
  const base = signatureBase(
    request({
      path: "/request",
      query: [
        ["b5", "=%3D"],
        ["a3", "a"],
        ["c@", ""],
        ["a2", "r b"],
        ["c2", ""],
        ["a3", "2 q"],
      ],
    }),
    "http://EXAMPLE.com:80",
    parametersOf(
      'OAuth realm="Example", oauth_consumer_key="9djdj82h48djs9d2", oauth_token="kkk9d7dh3k39sjv7", oauth_signature_method="HMAC-SHA1", oauth_timestamp="137131201", oauth_nonce="7d8f3e4a", oauth_signature="bYT5CMsGcbgUdFHObYMEfcx6bsw%3D"',
    ),
  );
  expect(base).toBe(
    "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7",
  );
});

test("headers that are no OAuth, say something twice or cannot be decoded have no parameters", () => {
  for (const header of [
    undefined,
    "",
    "Bearer x",
    "OAuth",
    "OAuth x",
    'OAuth a="1", a="2"',
    'OAuth a="%zz"',
    `OAuth a="${"x".repeat(9_000)}"`,
    `OAuth ${Array.from({ length: 40 }, (_, index) => `p${index}="1"`).join(",")}`,
  ]) {
    expect(oauthParameters(header)).toBeUndefined();
  }
});

test("a signature method without a key is no signature", () => {
  for (const method of ["PLAINTEXT", "RSA-SHA1", "constructor", ""]) {
    const parameters = parametersOf(`OAuth oauth_signature_method="${method}", oauth_signature="consumer%26"`);
    expect(isSignedWith(request({}), parameters, { consumer: "consumer", token: "" })).toBe(false);
  }
});
