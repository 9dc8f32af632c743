import assert from "node:assert/strict";
import { dirname } from "node:path";
import { busyboxImage } from "../support/images.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { LiveAgent, type Outcome, until } from "./live_agent.ts";

const IMAGE = "test/web:1";
const CTRL_P_Q = "\x10\x11";
/** Bytes of a layer whose pull takes long enough to be seen. */
const BIG_LAYER_BYTES = 24 << 20;
const REGISTRY = "127.0.0.1:5000";

/** Serves what a registry of the machine's own network holds inside the agent's network, where it pulls from. */
async function serveInside(agent: LiveAgent, registry: TestRegistry): Promise<void> {
  const config = await Deno.readTextFile(`${registry.dir}/config.yml`);
  const file = `${agent.dir}/registry.yml`;
  await Deno.writeTextFile(file, config.replace('"127.0.0.1:0"', `"${REGISTRY}"`));
  agent.host.spawn("docker-registry", ["serve", file], { stdin: "null", stdout: "null", stderr: "null" });
  await until("the registry answers", async () => (await agent.curl(`http://${REGISTRY}/v2/`)) !== "");
}

function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65_536, length)));
  }
  return bytes;
}

/** One line of why, nothing else, with this exit code. */
function assertRefused(outcome: Outcome, expected: { code: number; message: RegExp }): void {
  assert.equal(outcome.code, expected.code, outcome.err + outcome.out);
  assert.equal(outcome.out, "");
  assert.match(outcome.err, expected.message);
  assert.match(outcome.err, /^hypercore: [^\n]+\n$/, "one line");
}

Deno.test("images are pulled from a registry, loaded, listed and removed", async (t) => {
  await using registry = await startRegistry();
  await registry.push(
    busyboxImage({ layers: [{ big: { bytes: randomBytes(BIG_LAYER_BYTES) } }] }),
    "team/big:1",
  );
  await registry.push(busyboxImage(), "team/web:1");
  await using agent = await LiveAgent.start();
  await serveInside(agent, registry);

  await t.step("a pull is quiet when nobody watches", async () => {
    const { code, out, err } = await agent.cli(["image", "pull", `${REGISTRY}/team/web:1`]);
    assert.equal(code, 0, err);
    assert.match(out, /^127\.0\.0\.1:5000\/team\/web:1 sha256:[0-9a-f]{64}\n$/);
    assert.equal(err, "");
  });
  await t.step("a pull shows its progress on a terminal, and wipes it", async () => {
    const { code, out } = await agent.terminal(`hypercore image pull ${REGISTRY}/team/big:1`);
    assert.equal(code, 0, out);
    assert.match(out, /[0-9a-f]{12} {2}downloading \S+ \w?iB \/ 24\.0 MiB/);
    assert.match(out.split("\x1b[J").at(-1)!, /^127\.0\.0\.1:5000\/team\/big:1 sha256:[0-9a-f]{64}\s*$/);
  });
  await t.step("a spawn pulls what is not there", async () => {
    await agent.ok("image", "rm", `${REGISTRY}/team/web:1`);
    const id = await agent.spawn("--image", `${REGISTRY}/team/web:1`, "--mem", "64");
    await agent.ok("stop", id);
  });
  await t.step("an archive is loaded from a file and from standard input", async () => {
    await agent.load(busyboxImage(), IMAGE);
    const listed = JSON.parse(await agent.ok("image", "list", "--json"));
    const names = listed.map(({ name }: { name: string }) => name).sort();
    assert.deepEqual(names, [
      "127.0.0.1:5000/team/big:1",
      "127.0.0.1:5000/team/web:1",
      "docker.io/test/web:1",
    ]);
    assert.deepEqual(Object.keys(listed[0]).sort(), ["createdAt", "digest", "name", "platform", "sizeBytes"]);
    assert.match(await agent.ok("image", "ls"), /^NAME +DIGEST +PLATFORM +SIZE +AGE\n/);
  });
  await t.step("what is wrong is one line", async () => {
    const before = await agent.inventory();
    const table: [string[], number, RegExp][] = [
      [["image", "pull", `${REGISTRY}/team/absent:1`], 1, /team\/absent:1.*(not found|unknown|no such)/i],
      [["image", "pull", "127.0.0.1:1/team/web:1"], 1, /127\.0\.0\.1:1/],
      [["image", "pull", "UPPER CASE"], 2, /"UPPER CASE"/],
      [["image", "rm", "test/absent:1"], 1, /test\/absent:1/],
      [["image", "load", "/nonexistent.tar"], 1, /\/nonexistent\.tar/],
      [["image", "load", "/etc/passwd"], 1, /archive|tar|layout/],
    ];
    for (const [args, code, message] of table) assertRefused(await agent.cli(args), { code, message });
    assert.deepEqual(await agent.inventory(), before);
  });
  await t.step("removed images are gone, with their snapshots", async () => {
    for (const name of [IMAGE, `${REGISTRY}/team/big:1`, `${REGISTRY}/team/web:1`]) {
      assert.equal(await agent.ok("image", "rm", name), `${name}\n`);
    }
    assert.deepEqual(JSON.parse(await agent.ok("image", "list", "--json")), []);
    await until("the snapshots are gone", async () => (await agent.inventory()).snapshots.length === 0);
  });
});

Deno.test("a workload is spawned from flags, file and environment, listed, inspected and stopped", async (t) => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const stop = async (id: string) => assert.equal(await agent.ok("stop", id), `${id}\n`);

  await t.step("flags", async () => {
    const flags = [
      "--cpu",
      "0.5",
      "--mem",
      "64m",
      "--ports",
      "8080:8080,9090:8080",
      "--name",
      "web",
      "--env",
      "A=b=c",
    ];
    const spawned = JSON.parse(await agent.ok("spawn", "--image-ref", IMAGE, ...flags, "--json"));
    assert.deepEqual(Object.keys(spawned), ["id", "url", "node"]);
    assert.match(spawned.id, /^[0-9a-f]{12}$/);
    assert.equal(spawned.url, `http://${spawned.id}.example.com:8080`);
    assert.equal(spawned.node, "n1");
    await until("both ports serve", async () => {
      const pages = await Promise.all([8080, 9090].map((port) => agent.page(spawned.id, port)));
      return pages.every((page) => page.startsWith("Hello"));
    });
    assert.equal(await agent.ok("exec", "web", "sh", "-c", "echo $A"), "b=c\n");
    // The proof of its start comes a moment later.
    const [{ createdAt, startedAt, proof: _proof, ...listed }] = await agent.list();
    assert.ok(Date.parse(String(createdAt)) <= Date.parse(String(startedAt)));
    assert.deepEqual(listed, {
      id: spawned.id,
      name: "web",
      image: IMAGE,
      node: "n1",
      status: "running",
      url: spawned.url,
      cpus: 0.5,
      memoryMib: 64,
      ports: { "8080": 8080, "9090": 8080 },
      runtime: "runc",
      labels: {},
      generation: 1,
      restarts: 0,
      reason: "",
    });
    assert.match(
      await agent.ok("list"),
      new RegExp(`^ID +NAME .*\\n${spawned.id} +web +${IMAGE} +n1 +running`),
    );
    assert.equal(await agent.ok("cluster", "list", "-q"), `${spawned.id}\n`);
    const inspected = JSON.parse(await agent.ok("inspect", "web"));
    assert.match(inspected.address, /^192\.168\.127\.\d+$/);
    assert.match(inspected.imageDigest, /^sha256:/);
    assert.ok(inspected.pid > 1);
    assert.equal(inspected.spec.process.noNewPrivileges, true);
    await stop("web");
  });
  await t.step("hac.toml", async () => {
    await Deno.writeTextFile(
      `${agent.dir}/hac.toml`,
      `[spacecore]\nname = "n"\ndescription = "d"\n[hardware]\ncores = 1\nmemory = 96\nref = "${IMAGE}"\n`,
    );
    const ids = (await agent.ok("spawn", "--hac", "hac.toml", "--ports", "8080:8080")).split("\n");
    const second = await agent.spawn("--mem", "64"); // the file in the working directory names the image
    assert.deepEqual((await agent.list()).map(({ memoryMib }) => memoryMib).sort(), [64, 96]);
    await Deno.remove(`${agent.dir}/hac.toml`);
    await stop(ids[0]);
    await stop(second);
  });
  await t.step("environment and configuration file, flags first", async () => {
    await Deno.writeTextFile(
      `${agent.dir}/c.toml`,
      `image-ref = "${IMAGE}"\nmem = 80\ncpu = 2\nports = "8080:8080"\n`,
    );
    const { out, code, err } = await agent.cli(["spawn", "--config", "c.toml", "--json", "--cpu", "1"], {
      env: { HYPERCORE_MEM: "72" },
    });
    assert.equal(code, 0, err);
    const [{ cpus, memoryMib, ports }] = await agent.list();
    assert.deepEqual({ cpus, memoryMib, ports }, { cpus: 1, memoryMib: 72, ports: { "8080": 8080 } });
    await stop(JSON.parse(out).id);
  });
  await t.step("a dry run starts nothing", async () => {
    assert.deepEqual(JSON.parse(await agent.ok("spawn", "--image", IMAGE, "--dry-run", "--json")), {
      id: "",
      url: "",
      node: "n1",
    });
  });
  await until("nothing is left", async () => (await agent.list()).length === 0);
  assert.deepEqual(await agent.inventory(), before);
});

Deno.test("Ctrl-C during a spawn undoes it", async () => {
  // A plugin that never ends holds the spawn in the middle.
  const cniDir = await Deno.makeTempDir({ prefix: "hc-cni-" });
  await using _ = { [Symbol.asyncDispose]: () => Deno.remove(cniDir, { recursive: true }) };
  const script =
    `#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exec /usr/lib/cni/ptp\n: >${cniDir}/reached\nexec sleep 600\n`;
  await Deno.writeTextFile(`${cniDir}/ptp`, script, { mode: 0o755 });
  await using agent = await LiveAgent.start({ flags: ["--cni-path", cniDir, "--cni-path", "/usr/lib/cni"] });
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const child = agent.spawnCli(["spawn", "--image-ref", IMAGE, "--mem", "64"]);
    const output = child.output();
    await until("it is in the middle", () => Deno.stat(`${cniDir}/reached`).then(() => true, () => false));
    assert.equal((await agent.list()).length, 1);
    await Deno.remove(`${cniDir}/reached`);
    child.kill(signal);
    const { code, stdout, stderr } = await output;
    const text = new TextDecoder();
    const outcome = { code, out: text.decode(stdout), err: text.decode(stderr) };
    assertRefused(outcome, { code: 130, message: /^hypercore: Cannot spawn "test\/web:1": interrupted$/m });
    await until("nothing is left", async () => (await agent.list()).length === 0);
    assert.deepEqual(await agent.inventory(), before);
  }
});

Deno.test("logs are shown from the start, from the end, and as they grow", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const script =
    "for i in 1 2 3 4 5; do echo line $i; done; while read word; do echo got $word; done; sleep 600";
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "-i", "--", "/bin/sh", "-c", script);
  await until("all is there", async () => (await agent.ok("logs", id)).includes("line 5"));
  assert.equal(await agent.ok("logs", id, "--tail", "2"), "line 4\nline 5\n");
  assert.equal(await agent.ok("logs", "--id", id, "-n", "0"), "");
  const json = (await agent.ok("logs", id, "--tail", "1", "--json")).trim();
  assert.deepEqual(JSON.parse(json), { id, line: "line 5" });

  const follower = agent.spawnCli(["logs", "-f", "--tail", "1", id]);
  const reader = follower.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  const readUntil = async (text: string) => {
    while (!seen.includes(text)) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`the log ended: ${seen}`);
      seen += value;
    }
  };
  await readUntil("line 5\n");
  const attached = agent.spawnCli(["attach", id, "--no-sig-proxy"], { stdin: "piped" });
  const typing = attached.stdin.getWriter();
  await typing.write(new TextEncoder().encode("one\ntwo\n"));
  await readUntil("got two\n");
  assert.equal(seen, "line 5\ngot one\ngot two\n");
  attached.kill("SIGINT");
  assert.equal((await attached.output()).code, 0, "the signal detaches");
  await typing.abort().catch(() => {}); // its reader is gone
  assert.equal((await agent.list())[0].restarts, 0);
  follower.kill("SIGINT");
  await reader.cancel();
  await follower.stderr.cancel();
  assert.equal((await follower.status).code, 130);
});

Deno.test("exec has the command's output, input, exit code and terminal", async (t) => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "128", "--name", "box");

  await t.step("output and exit codes", async () => {
    assert.deepEqual(await agent.cli(["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7"]), {
      code: 7,
      out: "out\n",
      err: "err\n",
    });
    const codes: [string[], number][] = [
      [["box", "true"], 0],
      [["box", "sh", "-c", "kill -9 $$"], 137],
      [["box", "absent-program"], 127],
      [["box", "/absent/program"], 127],
      [["box", "/etc/passwd"], 126],
      [["box", "/etc"], 126],
      [["nobody", "true"], 125],
      [["../../etc/shadow", "true"], 125],
      [["box"], 125],
    ];
    for (const [args, code] of codes) {
      const outcome = await agent.cli(["exec", ...args]);
      assert.equal(outcome.code, code, args.join(" ") + outcome.err);
      if (code >= 125 && code < 128) assert.match(outcome.err, /^hypercore: [^\n]+\n$/);
    }
  });
  await t.step("user, working directory and environment", async () => {
    const flags = ["-u", "app", "-w", "/tmp", "-e", "X=a b"];
    assert.equal(
      await agent.ok("exec", ...flags, "box", "sh", "-c", "id -un; pwd; echo $X"),
      "app\n/tmp\na b\n",
    );
  });
  await t.step("input of a megabyte, and its end", async () => {
    const stdin = randomBytes(1 << 20);
    const { out, code } = await agent.cli(["exec", "-i", "box", "sha256sum"], { stdin });
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", stdin)).toHex();
    assert.deepEqual([code, out], [0, `${digest}  -\n`]);
  });
  await t.step("signals reach the command", async () => {
    const script = "trap 'echo caught; exit 42' TERM; echo up; while :; do sleep 0.1; done";
    const child = agent.spawnCli(["exec", "box", "sh", "-c", script]);
    let out = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (!out.includes("up") && text.includes("up")) child.kill("SIGTERM");
      out += text;
    }
    await child.stderr.cancel();
    assert.equal(out, "up\ncaught\n");
    assert.equal((await child.status).code, 42);
  });
  await t.step("a terminal, its size as it changes, and the local one as it was", async () => {
    const script = `stty -g >before; tty=$(tty)
(while ! [ -e go ]; do sleep 0.05; done; stty -F "$tty" cols 132 rows 43) &
hypercore exec -it box sh -c 'stty size; trap "stty size; exit 3" WINCH; echo ready; while :; do sleep 0.1; done'
echo "code $?"; stty -g >after`;
    const running = agent.terminal(script, [{ after: /24 80\s+ready/, type: "" }]);
    void until("it is ready", async () => (await agent.ok("exec", "box", "ps")).includes("stty size; trap"))
      .then(() => Deno.writeTextFile(`${agent.dir}/go`, ""));
    const { out } = await running;
    assert.match(out, /43 132\s+code 3/);
    assert.equal(
      await Deno.readTextFile(`${agent.dir}/after`),
      await Deno.readTextFile(`${agent.dir}/before`),
    );
  });
  await t.step(
    "keys, also Ctrl-C, go to the command; detach keys leave and give the terminal back",
    async () => {
      const { out } = await agent.terminal(
        `stty -g >before; hypercore exec -it box sh; echo "code $?"; stty -g >after`,
        [{ after: /# /, type: "echo be''gun; sleep 60\r" }, { after: /begun/, type: "\x03" }, {
          after: /# /,
          type: `echo typed >/tmp/typed\r${CTRL_P_Q}`,
        }],
      );
      assert.match(out, /code 0\s*$/);
      assert.equal(
        await Deno.readTextFile(`${agent.dir}/after`),
        await Deno.readTextFile(`${agent.dir}/before`),
      );
    },
  );
  await t.step("a terminal is refused to what is none", async () => {
    assertRefused(await agent.cli(["exec", "-it", "box", "sh"]), { code: 125, message: /not a terminal/ });
  });
  assert.equal((await agent.list())[0].id, id);
});

Deno.test("attach types into the workload, passes on what comes before the detach keys, and leaves it running", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "-it", "--", "/bin/sh");
  const { out } = await agent.terminal(
    `stty -g >before; hypercore attach ${id}; echo "code $?"; stty -g >after`,
    [
      { after: /^/, type: "echo 1st-$((1+1))\r" },
      { after: /1st-2/, type: `echo last >/tmp/last\r${CTRL_P_Q}` },
    ],
  );
  assert.match(out, /code 0/);
  assert.equal(
    await Deno.readTextFile(`${agent.dir}/after`),
    await Deno.readTextFile(`${agent.dir}/before`),
  );
  await until(
    "what was typed last has arrived",
    async () => (await agent.cli(["exec", id, "cat", "/tmp/last"])).out === "last\n",
  );
  assert.equal((await agent.list())[0].restarts, 0);
  // It ends as the workload does.
  const ending = await agent.terminal(`hypercore attach ${id}; echo "code $?"`, [{
    after: /^/,
    type: "exit 5\r",
  }]);
  assert.match(ending.out, /code 5/);
  await agent.ok("stop", id);
});

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

const ROOT = dirname(dirname(dirname(new URL(import.meta.url).pathname)));
