import assert from "node:assert/strict";
import { dirname } from "node:path";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, type Outcome, until } from "./live_agent.ts";
import { assertRefused } from "./refusal.ts";

const IMAGE = "test/web:1";
const ROOT = dirname(dirname(dirname(new URL(import.meta.url).pathname)));

Deno.test("bad input is one clear line with the right code, and changes nothing", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const taken = agent.host.spawn("/bin/busybox", ["httpd", "-f", "-p", "7777"], {
    stdin: "null",
    stdout: "null",
    stderr: "null",
  });
  await until(
    "the port is taken",
    async () => (await agent.host.run("ss", "-Hltn", "sport = 7777")).stdout !== "",
  );
  const before = await agent.inventory();
  const spawn = (...flags: string[]) => ["spawn", "--image-ref", IMAGE, "--mem", "64", ...flags];
  const table: [string[], number, RegExp][] = [
    [["spawn", "--image-ref", "Not An Image"], 2, /"Not An Image"/],
    [["spawn", "--image-ref", "web/UPPER"], 1, /"web\/UPPER"/],
    [["spawn", "--image-ref", "web:"], 1, /"web:"/],
    [["spawn", "--image-ref", `web@sha256:00`], 1, /web@sha256:00/],
    [["spawn"], 2, /which image/],
    [spawn("--ports", "0:80"), 2, /ports/],
    [spawn("--ports", "65536:80"), 2, /65536/],
    [spawn("--ports", "80:70000"), 2, /70000/],
    [spawn("--ports", "80:"), 2, /80:/],
    [spawn("--ports", "7777:80"), 1, /port "?7777/],
    [spawn("--ports", "8000:80"), 1, /8000.*agent itself/],
    [spawn("--ports", "81:80,81:90"), 2, /81.*twice/],
    [spawn("--ports", "81:80", "--ports", "81:90"), 2, /81.*twice/],
    [spawn("--cpu", "0"), 2, /--cpu/],
    [spawn("--cpu", "-1"), 2, /--cpu/],
    [spawn("--cpu", "1e9"), 2, /--cpu/],
    [spawn("--cpu", "4000"), 1, /4000 vCPUs are asked for/],
    [spawn("--mem", "0"), 2, /--mem/],
    [spawn("--mem", "1"), 1, /memory/],
    [spawn("--mem", "999999999999"), 2, /--mem/],
    [spawn("--mem", "8t"), 1, /8388608 MiB of memory are asked for/],
    [spawn("--env", "NOVALUE"), 2, /--env/],
    [spawn("--env", "=x"), 2, /--env/],
    [spawn("--env", "A=1", "--env", "A=2"), 1, /"A".*twice/],
    [spawn("--name", "../up"), 2, /--name/],
    [spawn("--node", "elsewhere"), 1, /elsewhere/],
    [spawn("--pids-limit", "0"), 2, /--pids-limit/],
    [spawn("--nonsense"), 2, /--nonsense/],
    [spawn("--", "/absent/program"), 1, /\/absent\/program/],
    [["stop", "0123456789ab"], 1, /0123456789ab/],
    [["stop", "../../etc/shadow"], 2, /etc\/shadow/],
    [["logs", "../../etc/shadow"], 2, /etc\/shadow/],
    [["logs", "0123456789ab"], 1, /0123456789ab/],
    [["inspect", "0123456789ab"], 1, /0123456789ab/],
    [["inspect", "../../etc/shadow"], 2, /etc\/shadow/],
    [["attach", "0123456789ab"], 125, /0123456789ab/],
    [["stop"], 2, /id/],
    [["list", "--api", "127.0.0.1:1"], 1, /no agent answers at 127\.0\.0\.1:1/],
    [["list", "--token", "wrong-token-wrong-token"], 1, /valid token/],
    [["nonsense"], 2, /nonsense/],
  ];
  const failures: unknown[] = [];
  for (const [args, code, message] of table) {
    try {
      assertRefused(await agent.cli(args), { code, message });
    } catch (error) {
      failures.push(`${args.join(" ")}: ${error}`);
    }
  }
  assert.deepEqual(failures, []);
  assert.deepEqual(await agent.inventory(), before);
  taken.kill("SIGKILL");
  await taken.status;
});

Deno.test("an agent without containerd, or with a data directory that cannot be written, says so in one line", async () => {
  await using agent = await LiveAgent.prepare();
  const start = async (mount: string) => {
    // In a mount namespace of its own, whose programs or data directory are changed before the agent starts.
    const child = agent.host.spawn("unshare", [
      ...["-m", "sh", "-c", `${mount} && exec "$@"`, "sh", Deno.execPath(), "run", "-A", "--no-check"],
      ...["--config", `${ROOT}/deno.json`, `${ROOT}/main.ts`, ...agent.agentArgs],
      // A PATH that leads to no other containerd, whichever is tested.
    ], { env: { PATH: "/usr/bin:/bin" }, stdin: "null", stdout: "piped", stderr: "piped" });
    const { code, stdout, stderr } = await child.output();
    return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
  };
  const fails = (outcome: Outcome, message: RegExp) => {
    assert.equal(outcome.code, 1, outcome.err);
    assert.match(outcome.err.replaceAll("\\", ""), message);
    const errors = outcome.err.split("\n").filter((line) => / error /.test(line));
    assert.equal(errors.length, 1, outcome.err);
  };
  // The shell and everything it may need to exec come from elsewhere.
  fails(await start("mount -t tmpfs none /usr/bin"), /there is no program "containerd" on the PATH/);
  await Deno.mkdir(agent.dataDir, { recursive: true });
  fails(await start(`mount -t tmpfs -o ro none ${agent.dataDir}`), /Cannot .*"[^"]*data[^"]*".*[Rr]ead-only/);
  assert.deepEqual(await agent.host.guestNetns(), []);
});

Deno.test("a missing CNI plug-in is one line that names it, and changes nothing", async () => {
  await using agent = await LiveAgent.start({ flags: ["--cni-path", "/nonexistent/cni"] });
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const outcome = await agent.cli(["spawn", "--image-ref", IMAGE, "--mem", "64"]);
  assertRefused(outcome, { code: 1, message: /CNI plugin "?\w+"?.*\/nonexistent\/cni/ });
  assert.deepEqual(await agent.inventory(), before);
});

Deno.test("a full disk is one line, changes nothing, and is forgotten when there is room again", async () => {
  await using agent = await LiveAgent.prepare();
  await Deno.mkdir(agent.dataDir, { recursive: true });
  await agent.host.run("mount", "-t", "tmpfs", "-o", "size=48m", "none", agent.dataDir);
  await agent.run();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080");
  await until("the page comes", async () => (await agent.page(id)).startsWith("Hello"));
  const before = await agent.inventory();
  const filler = `${agent.dataDir}/filler`;
  await agent.host.runCommand({
    program: "dd",
    args: ["if=/dev/zero", `of=${filler}`, "bs=4k"],
    timeoutMs: 60_000,
  });
  const outcome = await agent.cli(["spawn", "--image-ref", IMAGE, "--mem", "64"]);
  assertRefused(outcome, { code: 1, message: /[Nn]o space left on device/ });
  assert.match(await agent.page(id), /^Hello/, "what runs goes on");
  assert.equal((await agent.list()).length, 1);
  await Deno.remove(filler);
  let after = await agent.inventory();
  await until("nothing of the failed spawn is left", async () => {
    after = await agent.inventory();
    return JSON.stringify(after) === JSON.stringify(before);
  }).catch((error) => {
    assert.deepEqual(after, before, error.message);
  });
  const next = await agent.spawn("--image-ref", IMAGE, "--mem", "64");
  await agent.ok("stop", next);
  assert.deepEqual(await agent.inventory(), before);
});
