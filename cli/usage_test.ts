import assert from "node:assert/strict";
import { runCli } from "./testing/run_cli.ts";

Deno.test("bad input is one line that names flag and value, exit code 2", async () => {
  for (
    const [args, message] of [
      [["spawn", "--image", "a", "--ports", "0:80"], /--ports.*"0" is not a port/],
      [["spawn", "--image", "a", "--ports", "80:1,80:2"], /--ports.*80 is listed twice/],
      [["spawn", "--image", "a", "--cpu", "0"], /--cpu.*"0" is not a CPU count/],
      [["spawn", "--image", "a", "--mem", "-5"], /--mem.*"-5" is not a memory size/],
      [["spawn", "--image", "a", "--env", "NOPE"], /--env.*"NOPE" is not KEY=value/],
      [["spawn", "--image", "a", "--image-ref", "b"], /--image and --image-ref name two images/],
      [["spawn", "--image", "a", "--provider", "docker"], /--provider: "docker" is not one of/],
      [["spawn"], /which image\?/],
      [["stop", "../../etc/shadow"], /id: "..\/..\/etc\/shadow" is not a workload's id or name/],
      [["stop"], /which workload\?/],
      [["list", "--api", "ftp://x"], /--api: "ftp:\/\/x" is not an http or https URL/],
      [["list", "--api", "x"], /--api: "x" is not host:port/],
      [["attach", "w", "--detach-keys", "ctrl-"], /--detach-keys: "ctrl-" is not a key/],
      [["list", "--nope"], /unknown option '--nope'/],
      [["nope"], /(unknown command|too many arguments)/],
      [["agent", "--join", "a b"], /--join.*"a b" is not an address to join/],
      [["cluster", "10.0.0.1:79460"], /"10\.0\.0\.1:79460" has a port outside 1 to 65535/],
      [["agent", "--join", "c2hvcnQ=@n1"], /--join.*the gossip key has 5 bytes/],
      [["agent", "--encrypt", "!"], /--encrypt: the gossip key is not base64/],
      [["agent", "--tag", "hc=2"], /--tag: "hc" is the agent's own/],
      [["agent", "--beacon-price", "-1"], /--beacon-price.*"-1" is not a number from 0/],
      [["agent", "--beacon-reputation", "1.1"], /--beacon-reputation.*"1\.1" is not a number from 0 to 1/],
      [["agent", "--beacon-endpoint", "ftp://x"], /--beacon-endpoint.*"ftp:\/\/x" is none of http/],
      [["agent", "--tag", "arch=arm64"], /--tag: "arch" is the agent's own/],
      [["agent", "--grpc-bind-addr", "0.0.0.0:8000"], /--grpc-bind-addr: 0\.0\.0\.0:8000 is not loopback/],
      [["agent", "--cluster-tls-cert", "c.pem"], /--cluster-tls-cert and --cluster-tls-key go together/],
      [["agent", "--data-dir", "x"], /--data-dir: "x" is not an absolute path/],
      [["agent", "--subnet", "10.0.0.1/24"], /--subnet.*bits set beyond/],
      [["agent", "--proof-interval", "60"], /--proof-interval.*"60" is not a time such as/],
      [["agent", "--proof-interval", "1ms"], /--proof-interval.*not between 100ms and 24h/],
      [["agent", "--identity-key", "x"], /--identity-key: "x" is not an absolute path/],
      [["agent", "--log-level", "loud"], /--log-level.*Allowed choices/],
    ] as [string[], RegExp][]
  ) {
    const { code, err, out } = await runCli(args);
    assert.deepEqual([code, out], [2, ""], `${args}: ${err}`);
    assert.match(err.split("\n")[0], message);
    assert.match(err, /^hypercore: /);
  }
});

Deno.test("a flag wins over the environment, the environment over the file", async () => {
  const files = { "/c.toml": 'api = "127.0.0.1:3"\ntoken = "x"\nlog-level = "warn"\n' };
  const asked = async (args: string[], env: Record<string, string> = {}) =>
    /answers at ([^;]*);/.exec((await runCli(["list", ...args], { env, files })).err)?.[1];
  const env = { HYPERCORE_API: "127.0.0.1:2" };
  assert.equal(await asked(["--config", "/c.toml", "--api", "127.0.0.1:1"], env), "127.0.0.1:1");
  assert.equal(await asked(["--config", "/c.toml"], env), "127.0.0.1:2");
  assert.equal(await asked(["--config", "/c.toml"]), "127.0.0.1:3");
  assert.equal(await asked([], { HYPERCORE_CONFIG: "/c.toml" }), "127.0.0.1:3");
});

Deno.test("a file's mistakes name file and key", async () => {
  const read = async (text: string, args = ["agent"]) =>
    await runCli([...args, "--config", "/c.toml"], { files: { "/c.toml": text } });
  for (
    const [text, message] of [
      ["nope = 1", /\/c\.toml: unknown key "nope"/],
      ['subnet = "x"', /\/c\.toml: subnet: "x" is not an IPv4 network/],
      ["insecure = 5", /\/c\.toml: insecure: "5" is neither true nor false/],
      ["data-dir = [1, 2]", /\/c\.toml: data-dir: takes one value/],
      ["tag = { a = 1 }", /\/c\.toml: tag: takes a string/],
      ["= 1", /Cannot read the configuration "\/c\.toml"/],
      ['log-level = "loud"', /\/c\.toml: log-level: /],
    ] as [string, RegExp][]
  ) {
    const { code, err } = await read(text);
    assert.equal(code, 2, err);
    assert.match(err, message);
  }
  assert.match((await runCli(["list", "--config", "/none"])).err, /Cannot read the configuration "\/none"/);
  const env = await runCli(["agent"], { env: { HYPERCORE_SUBNET: "x" } });
  assert.match(env.err, /^hypercore: HYPERCORE_SUBNET: "x" is not an IPv4 network/);
});

Deno.test("help and version exit with 0, no command with 2", async () => {
  assert.equal((await runCli(["--help"])).code, 0);
  assert.match((await runCli(["spawn", "--help"])).out, /--image-ref/);
  assert.match((await runCli(["--version"])).out, /^hypercore \d+\.\d+\.\d+\n/);
  assert.equal(JSON.parse((await runCli(["version", "--json"])).out).build, "source");
  assert.equal((await runCli([])).code, 2);
});

Deno.test("every flag of the original is accepted", async () => {
  const help = async (...command: string[]) => (await runCli([...command, "--help"])).out;
  const agent = await help("cluster");
  for (
    const flag of [
      "containerd-socket",
      "containerd-ns",
      "grpc-bind-addr",
      "http-bind-addr",
      "cluster-bind-addr",
      "cluster-base-url",
      "cluster-tls-cert",
      "cluster-tls-key",
      "cluster-policy",
      "respawn-on-node-failure",
    ]
  ) {
    assert.ok(agent.includes(`--${flag}`), flag);
  }
  const spawn = await help("cluster", "spawn");
  for (
    const flag of ["grpc-bind-addr", "cpu", "mem", "image-ref", "ports", "env", "policy", "hac", "provider"]
  ) {
    assert.ok(spawn.includes(`--${flag}`), flag);
  }
});
