import assert from "node:assert/strict";
import { checkBind } from "./bind.ts";
import { acceptedHosts, judge, type RequestFacts } from "./guard.ts";
import { isSameToken, loadToken, TOKEN_FILE } from "./token.ts";

const token = "0123456789abcdef";
const policy = { token, hosts: new Set(["n1", "example.com"]) };
const good: RequestFacts = {
  host: "127.0.0.1:8000",
  origin: undefined,
  fetchSite: undefined,
  authorization: `Bearer ${token}`,
};

Deno.test("the guard lets in who has the token and names this agent", () => {
  for (const host of ["localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "N1:8000", "example.com"]) {
    assert.equal(judge({ ...good, host }, policy), undefined, host);
  }
  assert.equal(
    judge({ ...good, origin: "http://127.0.0.1:8000", fetchSite: "same-origin" }, policy),
    undefined,
  );
  assert.equal(judge({ ...good, authorization: undefined }, policy, { isPublic: true }), undefined);
  assert.equal(judge({ ...good, authorization: undefined }, { hosts: policy.hosts }), undefined);
});

Deno.test("the guard refuses foreign hosts, origins and sites, also on public paths", () => {
  const bad: Partial<RequestFacts>[] = [
    ...[
      "",
      undefined,
      "evil.example",
      "127.0.0.1.evil.example",
      "localhost.evil.example",
      "127.0.0.1@evil.example",
      "a b",
      "sub.example.com",
      "[::1",
      "127.0.0.1:8000:1",
      "0.0.0.0",
      "192.0.2.1",
    ].map((host) => ({ host })),
    ...[
      "null",
      "http://evil.example",
      "https://127.0.0.1:8001",
      "file://",
      "http://127.0.0.1:8000.evil.example",
    ]
      .map((origin) => ({ origin })),
    ...["cross-site", "same-site", "x"].map((fetchSite) => ({ fetchSite })),
  ];
  for (const facts of bad) {
    assert.equal(
      judge({ ...good, ...facts }, policy, { isPublic: true })?.kind,
      "forbidden",
      JSON.stringify(facts),
    );
  }
});

Deno.test("the guard refuses a missing, wrong, cut or decorated token", () => {
  for (
    const authorization of [
      undefined,
      "",
      token,
      "Basic " + token,
      "Bearer",
      "Bearer ",
      `Bearer ${token}x`,
      `Bearer ${token.slice(1)}`,
      `Bearer ${token} x`,
      `Bearer ${token.toUpperCase()}`,
      `Bearer ${"x".repeat(9999)}`,
    ]
  ) {
    assert.equal(
      judge({ ...good, authorization }, policy)?.kind,
      "unauthenticated",
      authorization ?? "no header",
    );
  }
  assert.equal(isSameToken("a", "aa"), false);
});

Deno.test("on a wildcard address the addresses of the machine are accepted", () => {
  const options = { nodeName: "N1", baseUrl: "x.io", interfaceAddresses: ["192.0.2.7"] };
  assert(acceptedHosts({ ...options, bindHosts: ["0.0.0.0"] }).has("192.0.2.7"));
  assert(!acceptedHosts({ ...options, bindHosts: ["127.0.0.1"] }).has("192.0.2.7"));
});

Deno.test("the token is made once, for its owner alone, by however many agents", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const tokens = await Promise.all(Array.from({ length: 8 }, () => loadToken(`${dir}/data`)));
    assert.equal(new Set(tokens).size, 1);
    assert.match(tokens[0], /^[0-9a-f]{64}$/);
    assert.equal((await Deno.stat(`${dir}/data/${TOKEN_FILE}`)).mode! & 0o777, 0o600);
    assert.deepEqual([...Deno.readDirSync(`${dir}/data`)].map((entry) => entry.name), [TOKEN_FILE]);
    assert.equal(await loadToken(`${dir}/data`), tokens[0]);
    await Deno.chmod(`${dir}/data/${TOKEN_FILE}`, 0o644);
    await assert.rejects(loadToken(`${dir}/data`), /Cannot load the API token .*0600/);
    await Deno.writeTextFile(`${dir}/data/${TOKEN_FILE}`, "");
    await Deno.chmod(`${dir}/data/${TOKEN_FILE}`, 0o600);
    await assert.rejects(loadToken(`${dir}/data`), /remove it for a new one/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a token file that somebody planted is neither used nor followed", async () => {
  const dir = await Deno.makeTempDir();
  try {
    await Deno.symlink(`${dir}/elsewhere`, `${dir}/${TOKEN_FILE}`);
    await assert.rejects(loadToken(dir), /Cannot load the API token .*0600/);
    await Deno.writeTextFile(`${dir}/elsewhere`, token, { mode: 0o600 });
    await assert.rejects(loadToken(dir), /Cannot load the API token .*0600/);
    await Deno.remove(`${dir}/${TOKEN_FILE}`);
    await Deno.mkdir(`${dir}/${TOKEN_FILE}`, { mode: 0o700 });
    await assert.rejects(loadToken(dir), /Cannot load the API token/);
    assert.deepEqual([...Deno.readDirSync(dir)].map((entry) => entry.name).sort(), ["elsewhere", TOKEN_FILE]);
    assert.equal(await Deno.readTextFile(`${dir}/elsewhere`), token);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("only loopback, TLS or insecure may listen", () => {
  const address = { host: "0.0.0.0", port: 8000 };
  const apiTls = { certFile: "c", keyFile: "k" };
  assert.throws(() => checkBind(address, { insecure: false }), /Cannot listen on "0.0.0.0:8000"/);
  checkBind(address, { insecure: true });
  checkBind(address, { insecure: false, apiTls });
  checkBind({ host: "::1", port: 1 }, { insecure: false });
});
