import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { basicAuthorization, type Challenge, dockerConfigCredentials, parseChallenges } from "./auth.ts";

Deno.test("challenges are read, bearer first", async (t) => {
  const table: Record<string, Challenge[]> = {
    'Bearer realm="https://auth.example/token",service="a, b",scope="repository:x/y:pull,push"': [{
      scheme: "bearer",
      parameters: {
        realm: "https://auth.example/token",
        service: "a, b",
        scope: "repository:x/y:pull,push",
      },
    }],
    "basic realm=plain": [{ scheme: "basic", parameters: { realm: "plain" } }],
    "Basic": [{ scheme: "basic", parameters: {} }],
    'Basic realm="a", Bearer REALM = "b"': [
      { scheme: "bearer", parameters: { realm: "b" } },
      { scheme: "basic", parameters: { realm: "a" } },
    ],
    'Negotiate abc==, Bearer realm="b"': [{ scheme: "bearer", parameters: { realm: "b" } }],
    'Digest realm="d", nonce="n"': [],
    'Bearer realm="say \\"hi\\""': [{ scheme: "bearer", parameters: { realm: 'say "hi"' } }],
    "": [],
    ',,=",': [],
  };
  for (const [header, challenges] of Object.entries(table)) {
    await t.step(header || "empty", () => assert.deepEqual(parseChallenges(header), challenges));
  }
});

Deno.test("a long hostile challenge is read without backtracking for ever", () => {
  parseChallenges(`Bearer realm="${'\\"'.repeat(100_000)}`);
  parseChallenges(`Bearer ${" ".repeat(100_000)}`);
  parseChallenges("a".repeat(200_000));
});

Deno.test("basic credentials are UTF-8 in base64", () => {
  assert.equal(basicAuthorization("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
  assert.equal(basicAuthorization("ü", "ß:"), "Basic w7w6w586");
});

/** A docker config and a folder of credential helpers on PATH. */
class Setting implements AsyncDisposable {
  readonly #path = Deno.env.get("PATH") ?? "";
  private constructor(readonly dir: string) {}

  static async create(): Promise<Setting> {
    return new Setting(await Deno.makeTempDir({ prefix: "hc-auth-" }));
  }

  get file(): string {
    return `${this.dir}/config.json`;
  }

  async ask(config: unknown, registry: string, signal?: AbortSignal) {
    await Deno.writeTextFile(this.file, typeof config === "string" ? config : JSON.stringify(config));
    return await dockerConfigCredentials(this.file)(registry, signal);
  }

  async helper(name: string, script: string): Promise<void> {
    const file = `${this.dir}/docker-credential-${name}`;
    await Deno.writeTextFile(`${file}.text`, `#!/bin/sh\n${script}\n`);
    // Another program writes what is to be run: a program that starts meanwhile holds what this process has open for
    // writing, and nothing runs that is.
    const install = new Deno.Command("install", { args: ["-m", "755", `${file}.text`, file] });
    assert((await install.output()).success);
    Deno.env.set("PATH", `${this.dir}:${this.#path}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Deno.env.set("PATH", this.#path);
    await Deno.remove(this.dir, { recursive: true });
  }
}

Deno.test("credentials come from docker's config.json", async (t) => {
  await using setting = await Setting.create();
  const basic = (username: string, password: string) => ({ kind: "basic" as const, username, password });
  await t.step("auth", async () => {
    const auths = { "r.example": { auth: btoa("user:pass:word") }, "other": {} };
    assert.deepEqual(await setting.ask({ auths }, "r.example"), basic("user", "pass:word"));
    assert.equal(await setting.ask({ auths }, "other"), undefined);
    assert.equal(await setting.ask({ auths }, "r.example:5000"), undefined);
  });
  await t.step("username and password", async () => {
    const auths = { "https://r.example": { username: "u", password: "p" } };
    assert.deepEqual(await setting.ask({ auths }, "r.example"), basic("u", "p"));
  });
  await t.step("identity token", async () => {
    const auths = { "r.example": { auth: btoa("u:"), identitytoken: "t" } };
    assert.deepEqual(await setting.ask({ auths }, "r.example"), { kind: "identity-token", token: "t" });
  });
  await t.step("Docker Hub under its old name", async () => {
    const auths = { "https://index.docker.io/v1/": { auth: btoa("hub:p") } };
    assert.deepEqual(await setting.ask({ auths }, "docker.io"), basic("hub", "p"));
  });
  await t.step("no file, no credentials", async () => {
    assert.equal(await dockerConfigCredentials(`${setting.dir}/none.json`)("r.example"), undefined);
    assert.equal(await dockerConfigCredentials(`${setting.file}/below`)("r.example"), undefined);
  });
});

Deno.test("credentials come from docker's credential helpers", async (t) => {
  await using setting = await Setting.create();
  await t.step("the registry's own helper is asked for its host", async () => {
    await setting.helper("mine", `read host; echo "{\\"Username\\":\\"$1-$host\\",\\"Secret\\":\\"s\\"}"`);
    assert.deepEqual(await setting.ask({ credHelpers: { "r.example:1": "mine" } }, "r.example:1"), {
      kind: "basic",
      username: "get-r.example:1",
      password: "s",
    });
  });
  await t.step("the store is asked for everything else; a token is a token", async () => {
    await setting.helper("store", `cat >/dev/null; echo '{"Username":"<token>","Secret":"s"}'`);
    assert.deepEqual(await setting.ask({ credsStore: "store" }, "r.example"), {
      kind: "identity-token",
      token: "s",
    });
  });
  await t.step("one that has none leaves it to the file", async () => {
    await setting.helper("store", "echo credentials not found in native keychain; exit 1");
    const config = { credsStore: "store", auths: { "r.example": { auth: btoa("u:p") } } };
    assert.equal((await setting.ask(config, "r.example"))?.kind, "basic");
    assert.equal(await setting.ask(config, "other.example"), undefined);
  });
  const failures: Record<string, [script: string | undefined, reason: RegExp]> = {
    absent: [undefined, /docker-credential-absent is not on PATH/],
    fails: ["echo secret-word; exit 3", /exit code 3/],
    chatty: ["echo secret-word", /not JSON/],
    empty: ["echo '{}'", /no Username and Secret/],
    "../evil": [undefined, /its name holds more/],
  };
  for (const [name, [script, reason]] of Object.entries(failures)) {
    await t.step(`helper ${name}`, async () => {
      if (script) await setting.helper(name, script);
      await assert.rejects(setting.ask({ credsStore: name }, "r.example"), (error: unknown) => {
        assert(error instanceof RuntimeError);
        assert.equal(error.code, "precondition");
        assert.match(error.message, reason);
        assert.doesNotMatch(error.message, /secret-word/);
        return true;
      });
    });
  }
  await t.step("one that hangs ends with the signal, whatever it left running", async () => {
    await setting.helper("hangs", `sleep 600 & echo $! >"${setting.dir}/pid"; echo asked >&2; wait`);
    const controller = new AbortController();
    const asked = setting.ask({ credsStore: "hangs" }, "r.example", controller.signal);
    const pid = await untilWritten(`${setting.dir}/pid`);
    controller.abort(new Error("enough"));
    try {
      await assert.rejects(asked);
    } finally {
      Deno.kill(Number(pid), "SIGKILL");
    }
  });
});

Deno.test("a bad config.json is refused without showing its secrets", async (t) => {
  await using setting = await Setting.create();
  const table: Record<string, unknown> = {
    "no JSON": '{"auths":{"r.example":{"auth":"secret-word"',
    "no object": '"secret-word"',
    "auth is not user:password": { auths: { "r.example": { auth: btoa("secret-word") } } },
  };
  for (const [name, config] of Object.entries(table)) {
    await t.step(name, async () => {
      await assert.rejects(setting.ask(config, "r.example"), (error: unknown) => {
        assert(error instanceof RuntimeError);
        assert.equal(error.code, "precondition");
        assert.match(error.message, new RegExp(setting.file));
        for (let e: unknown = error; e instanceof Error; e = e.cause) {
          assert.doesNotMatch(e.message, /secret-word|c2VjcmV0/);
        }
        return true;
      });
    });
  }
});

async function untilWritten(file: string): Promise<string> {
  for (;;) {
    try {
      const text = await Deno.readTextFile(file);
      if (text.endsWith("\n")) return text.trim();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
