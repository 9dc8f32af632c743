import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { randomBytes } from "../support/random.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { assertRefused } from "./refusal.ts";

const IMAGE = "test/web:1";
const CTRL_P_Q = "\x10\x11";

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
      const wasUp = out.includes("up");
      out += text;
      if (!wasUp && out.includes("up")) child.kill("SIGTERM");
    }
    await child.stderr.cancel();
    assert.equal(out, "up\ncaught\n");
    assert.equal((await child.status).code, 42);
  });
  await t.step("a terminal, its size as it changes, and the local one as it was", async () => {
    // stty sets the columns and the rows by a call each: the command may see the size between them
    const script = `stty -g >before; tty=$(tty)
(while ! [ -e go ]; do sleep 0.05; done; stty -F "$tty" cols 132 rows 43) &
hypercore exec -it box sh -c 'resized() { set -- $(stty size); [ "$1 $2" = "43 132" ] && echo "$1 $2" && exit 3; }
stty size; trap resized WINCH; echo ready; touch /tmp/ready; while :; do sleep 0.1; done'
echo "code $?"; stty -g >after`;
    const running = agent.terminal(script, [{ after: /24 80\s+ready/, type: "" }]);
    const isReady = async () => (await agent.cli(["exec", "box", "test", "-e", "/tmp/ready"])).code === 0;
    void until("it is ready", isReady)
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
        [
          // Both by one process: between two the terminal is the shell's, which would only note the Ctrl-C.
          { after: /# /, type: `sh -c "echo be''gun; sleep 60"\r` },
          { after: /begun/, type: "\x03" },
          { after: /# /, type: `echo typed >/tmp/typed\r${CTRL_P_Q}` },
        ],
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
