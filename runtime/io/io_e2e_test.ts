import assert from "node:assert/strict";
import type { ProcessSession } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { ExecStartError } from "./exec_error.ts";
import type { OutputChunk } from "./output_queue.ts";
import { MAX_DRAIN_BYTES } from "./exec_session.ts";
import { IoBench, MAX_TEST_EXECS } from "./testing.ts";

const SLEEP = { args: ["sleep", "1000"] };
const SIGTERM = 15;

interface Result {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** Everything a session prints, and how it ends. */
async function finish(session: ProcessSession): Promise<Result> {
  const text = { stdout: "", stderr: "" };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  for await (const { stream, data } of session.output) {
    text[stream] += decoders[stream].decode(data, { stream: true });
  }
  return { ...text, exitCode: await session.exitCode };
}

/** Reads a session until what it printed matches. */
async function until(output: AsyncIterator<OutputChunk>, pattern: RegExp): Promise<string> {
  let seen = "";
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no ${pattern} in time: ${seen}`)), 20_000);
  using _ = { [Symbol.dispose]: () => clearTimeout(timer) };
  while (!pattern.test(seen)) {
    const next = await Promise.race([output.next(), late.promise]);
    if (next.done) throw new Error(`the output ended before ${pattern}: ${seen}`);
    seen += new TextDecoder().decode(next.value.data);
  }
  return seen;
}

async function text(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  return new TextDecoder().decode(await new Response(ReadableStream.from(chunks)).arrayBuffer());
}

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

function threads(): number {
  return Number(/^Threads:\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

function isError(code: string, message?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    if (message) assert.match(error.message, message);
    return true;
  };
}

/** Exec'd processes containerd still knows of, by pid: all but the init. */
async function execsOf(bench: IoBench, id: string): Promise<number> {
  const { processes } = await bench.client.tasks.listPids({ containerId: id });
  return processes.length - 1;
}

Deno.test("exec", async (t) => {
  await using bench = await IoBench.start();
  const id = await bench.run(SLEEP);
  const sh = (script: string) => ["sh", "-c", script];

  await t.step("tells the streams apart and gives the exit code", async () => {
    const session = await bench.io.exec(id, { args: sh("echo out; echo err >&2; exit 7") });
    assert(session.pid > 0);
    assert.deepEqual(await finish(session), { stdout: "out\n", stderr: "err\n", exitCode: 7 });
  });

  await t.step("delivers all output of a process that ends at once, before its exit code", async () => {
    for (let n = 0; n < 5; n++) {
      const result = await finish(await bench.io.exec(id, { args: sh("seq 1 30000") }));
      assert.equal(
        result.stdout.length,
        Array.from({ length: 30000 }, (_, n) => `${n + 1}\n`).join("").length,
      );
      assert.equal(result.exitCode, 0);
    }
  });

  await t.step("gives the exit code also when nobody reads the output", async () => {
    const session = await bench.io.exec(id, { args: sh("head -c 200000 /dev/zero; exit 3") });
    assert.equal(await session.exitCode, 3);
    assert.equal((await finish(session)).stdout.length, 200_000);
  });

  await t.step("streams stdin with backpressure and ends it", async () => {
    const session = await bench.io.exec(id, { args: ["wc", "-c"], stdin: true });
    const block = new Uint8Array(256 << 10);
    for (let n = 0; n < 20; n++) await session.write(block);
    await session.closeStdin();
    assert.deepEqual(await finish(session), { stdout: `${20 * block.length}\n`, stderr: "", exitCode: 0 });
    await assert.rejects(session.write(block), isError("precondition"));
  });

  await t.step("stops a process whose output nobody takes instead of buffering it", async () => {
    const session = await bench.io.exec(id, { args: ["yes"] });
    const output = session.output[Symbol.asyncIterator]();
    let bytes = 0;
    while (bytes < 5_000_000) bytes += (await output.next()).value!.data.length;
    await session.kill(9);
    assert.equal(await session.exitCode, 137);
  });

  await t.step("runs on a terminal of the wanted size, and resizes it", async () => {
    const session = await bench.io.exec(id, {
      args: ["sh"],
      tty: true,
      stdin: true,
      window: { columns: 91, rows: 33 },
    });
    const type = (line: string) => session.write(new TextEncoder().encode(line));
    const output = session.output[Symbol.asyncIterator]();
    await type("stty size; echo TERM=$TERM\n");
    assert.match(await until(output, /TERM=xterm/), /33 91/);
    await session.resize({ columns: 120, rows: 50 });
    await type("stty size\n");
    await until(output, /50 120/);
    await type("exit 4\n");
    assert.equal(await session.exitCode, 4);
  });

  await t.step("takes user, directory and environment", async () => {
    const { stdout } = await finish(
      await bench.io.exec(id, {
        args: sh("id; pwd; echo $FROM $NEW"),
        user: "app",
        workingDirectory: "/tmp",
        env: ["FROM=exec", "NEW=1"],
      }),
    );
    assert.match(stdout, /^uid=1234\(app\) gid=77\(app\) groups=[^\n]*88\(extra\)\n\/tmp\nexec 1\n$/);
  });

  await t.step("passes signals on", async () => {
    const session = await bench.io.exec(id, {
      args: sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"),
    });
    const output = session.output[Symbol.asyncIterator]();
    await until(output, /ready/);
    await session.kill(SIGTERM);
    assert.equal(await session.exitCode, 5);
    await session.kill(SIGTERM);
    await assert.rejects(
      session.kill(0).then(() => bench.io.exec(id, { args: ["true"] })).then((s) => s.kill(99)),
      isError("invalid"),
    );
  });

  await t.step("says with which code to exit when the command cannot be run", async () => {
    const cases: [string[], number, RegExp][] = [
      [["no-such-command"], 127, /Cannot exec "no-such-command" in ".*": executable file not found/],
      [["/no/such/command"], 127, /not found/],
      [["/bin/not-executable"], 126, /permission denied/],
      [["/tmp"], 126, /permission denied|is a directory/],
    ];
    for (const [args, exitCode, message] of cases) {
      await assert.rejects(bench.io.exec(id, { args }), (error) => {
        assert(error instanceof ExecStartError, String(error));
        assert.equal(error.exitCode, exitCode, error.message);
        assert.match(error.message, message);
        return true;
      });
    }
    await assert.rejects(
      bench.io.exec(id, { args: ["pwd"], workingDirectory: "/no/such/directory" }),
      (error) => error instanceof ExecStartError && error.exitCode === 126,
    );
  });

  await t.step("refuses what makes no sense", async () => {
    await assert.rejects(bench.io.exec(id, { args: [] }), isError("invalid"));
    await assert.rejects(
      bench.io.exec(id, { args: ["id"], user: "nobody-here" }),
      isError("invalid", /nobody-here/),
    );
    await assert.rejects(bench.io.exec(id, { args: ["a\0b"] }), isError("invalid"));
    await assert.rejects(bench.io.exec(id, { args: ["a"], env: ["novalue"] }), isError("invalid"));
    await assert.rejects(bench.io.exec(id, { args: ["x".repeat(2 << 20)] }), isError("invalid"));
    await assert.rejects(bench.io.exec("../x", { args: ["a"] }), isError("invalid"));
    await assert.rejects(bench.io.exec("absent", { args: ["a"] }), isError("not-found", /absent/));
  });

  await t.step("ends when its process does, although a child of that keeps the pipe open", async () => {
    const session = await bench.io.exec(id, { args: sh("sleep 1000 & echo started $!; exit 2") });
    const { stdout, exitCode } = await finish(session);
    assert.match(stdout, /^started \d+\n$/);
    assert.equal(exitCode, 2);
    await finish(await bench.io.exec(id, { args: sh(`kill ${stdout.split(" ")[1].trim()}`) }));
  });

  await t.step("ends when its process does, although a child of that goes on writing for ever", async () => {
    const session = await bench.io.exec(id, { args: sh("yes & echo $! >&2; exit 2") });
    const { stdout, stderr, exitCode } = await finish(session);
    assert.equal(exitCode, 2);
    assert(stdout.length < 2 * MAX_DRAIN_BYTES, `${stdout.length}`);
    await finish(await bench.io.exec(id, { args: sh(`kill -9 ${stderr.trim()} || true`) }));
  });

  await t.step("refuses one more than may run at once", async () => {
    while (bench.io.execCount > 0) await bench.client.version.version({});
    const all = await Promise.all(
      Array.from({ length: MAX_TEST_EXECS }, () => bench.io.exec(id, SLEEP)),
    );
    await assert.rejects(bench.io.exec(id, SLEEP), isError("exhausted", /52/));
    await Promise.all(all.map((session) => session[Symbol.asyncDispose]()));
    assert.equal((await finish(await bench.io.exec(id, { args: ["true"] }))).exitCode, 0);
  });

  await t.step("kills the process when the session is disposed or aborted", async () => {
    const session = await bench.io.exec(id, { args: ["sleep", "1000"] });
    await session[Symbol.asyncDispose]();
    assert.equal(await session.exitCode, 137);
    const client = new AbortController();
    const other = await bench.io.exec(id, { args: ["sleep", "1000"], signal: client.signal });
    client.abort();
    assert.equal(await other.exitCode, 137);
    await assert.rejects(bench.io.exec(id, { args: ["true"], signal: client.signal }), isError("canceled"));
  });

  await t.step("fifty at once leave no descriptor, thread, FIFO or process behind", async () => {
    await finish(await bench.io.exec(id, { args: ["true"] }));
    const before = { descriptors: openDescriptors(), threads: threads() };
    const results = await Promise.all(Array.from({ length: 50 }, async (_, n) => {
      const session = await bench.io.exec(id, { args: sh(`cat; exit ${n}`), stdin: true });
      await session.write(new TextEncoder().encode(`hello ${n}`));
      await session.closeStdin();
      return await finish(session);
    }));
    assert.deepEqual(results, results.map((_, n) => ({ stdout: `hello ${n}`, stderr: "", exitCode: n })));
    const idle = await bench.io.exec(id, { args: ["true"] });
    await finish(idle);
    await idle[Symbol.asyncDispose]();
    while (bench.io.execCount > 0) await bench.client.version.version({});
    assert.equal(await execsOf(bench, id), 0);
    assert.deepEqual([...Deno.readDirSync(`${bench.stateDir}/exec/${id}`)], []);
    assert(openDescriptors() <= before.descriptors + 1, `${before.descriptors} → ${openDescriptors()}`);
    // A read that blocks a thread of the pool would show as three threads a process.
    assert(threads() < before.threads + 100, `${before.threads} → ${threads()}`);
  });

  assert.deepEqual(bench.warnings, []);
});

Deno.test("an exec lives through a restart of containerd", async () => {
  await using bench = await IoBench.start();
  const id = await bench.run(SLEEP);
  const session = await bench.io.exec(id, { args: ["cat"], stdin: true });
  const output = session.output[Symbol.asyncIterator]();
  await bench.containerd.kill9();
  await session.write(new TextEncoder().encode("while it was away\n"));
  await until(output, /away/);
  await bench.containerd.start();
  await session.closeStdin();
  assert.equal(await session.exitCode, 0);
});

Deno.test("an agent that starts ends what was exec'd through an earlier one", async () => {
  await using bench = await IoBench.start();
  const id = await bench.run(SLEEP);
  const earlier = bench.io;
  await earlier.exec(id, { args: ["sleep", "1000"] });
  assert.equal(await execsOf(bench, id), 1);
  await bench.replaceIo([id]);
  assert.equal(await execsOf(bench, id), 0);
  assert.deepEqual([...Deno.readDirSync(`${bench.stateDir}/exec/${id}`)], []);
  await earlier[Symbol.asyncDispose]();
});

Deno.test("attach", async (t) => {
  await using bench = await IoBench.start();

  await t.step("shows the log's tail and what comes, writes to stdin, ends with the container", async () => {
    const id = await bench.run({ args: ["sh", "-c", "echo one; echo two; cat; exit 6"], stdin: true });
    const first = await bench.io.attach(id, { stdin: true, tail: 1 });
    const second = await bench.io.attach(id, { tail: 2 });
    assert(!first.tty);
    assert(first.pid > 0);
    await first.write(new TextEncoder().encode("typed\n"));
    await until(first.output[Symbol.asyncIterator](), /typed/);
    await first.closeStdin();
    const seen = await finish(second);
    assert.match(seen.stdout, /typed\n$/);
    assert.equal(seen.exitCode, 6);
    assert.equal(await first.exitCode, 6);
    assert.equal(await text(bench.io.logs(id)), "one\ntwo\ntyped\n");
    await assert.rejects(bench.io.attach(id, {}), isError("precondition", /does not run/));
  });

  await t.step(
    "works with a terminal, leaves the container alone when detached, passes signals on",
    async () => {
      const id = await bench.run({ args: ["sh"], tty: true, stdin: true });
      const session = await bench.io.attach(id, { stdin: true, window: { columns: 100, rows: 40 } });
      assert(session.tty);
      const output = session.output[Symbol.asyncIterator]();
      await session.write(new TextEncoder().encode("stty size; echo si''ze\n"));
      assert.match(await until(output, /\nsize\r\n/), /^40 100\r\n|\n40 100\r\n/);
      await session.resize({ columns: 80, rows: 20 });
      await session[Symbol.asyncDispose]();
      await assert.rejects(session.exitCode, isError("canceled"));

      const again = await bench.io.attach(id, { stdin: true, tail: 100 });
      const more = again.output[Symbol.asyncIterator]();
      await until(more, /40 100/);
      await again.write(new TextEncoder().encode("stty size\n"));
      await until(more, /20 80/);
      await again.kill(9);
      assert.equal(await again.exitCode, 137);
      assert((await more.return?.())?.done);
    },
  );

  await t.step("refuses stdin that was not kept open", async () => {
    const id = await bench.run(SLEEP);
    await assert.rejects(bench.io.attach(id, { stdin: true }), isError("precondition", /stdin/));
    const session = await bench.io.attach(id, {});
    await assert.rejects(session.write(new Uint8Array(1)), isError("precondition"));
    await assert.rejects(session.resize({ columns: 1, rows: 1 }), isError("precondition"));
    await session[Symbol.asyncDispose]();
  });

  assert.deepEqual(bench.warnings, []);
});

Deno.test("no line is lost or doubled while 200,000 are written, the log is trimmed and containerd is killed", async () => {
  const LINES = 200_000;
  const filler = "x".repeat(40);
  await using bench = await IoBench.start({ maxBytes: 1 << 20, maxFiles: 2 });
  const script = `seq 1 ${LINES} | while read n; do echo "$n ${filler}"; done; echo done; sleep 1000`;
  const id = await bench.run({ args: ["sh", "-c", script] });
  let expected = 1;
  let rest = "";
  let killed: Promise<void> | undefined;
  for await (const chunk of bench.io.logs(id, { follow: true })) {
    const lines = (rest + new TextDecoder().decode(chunk)).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (line === "done") continue;
      assert.equal(line, `${expected} ${filler}`);
      expected++;
    }
    if (expected > LINES / 4) killed ??= bench.containerd.kill9().then(() => bench.containerd.start());
    if (lines.includes("done")) break;
  }
  assert.equal(expected, LINES + 1);
  await killed;
  assert(bench.io.rotation.trims > 2, `${bench.io.rotation.trims} trims`);
  const blocks = (await Deno.stat(bench.io.logPath(id))).blocks!;
  assert(blocks * 512 < 6 << 20, `${blocks * 512} bytes on disk`);
  assert.match(await text(bench.io.logs(id, { tail: 2 })), /^200000 x+\ndone\n$/);
  assert.deepEqual(bench.warnings, []);
});

Deno.test("a terminal's output goes on while neither agent nor containerd is there", async () => {
  await using bench = await IoBench.start();
  const id = await bench.run({
    args: ["sh", "-c", "read go; seq 1 5000; sleep 1000"],
    tty: true,
    stdin: true,
  });
  const session = await bench.io.attach(id, { stdin: true });
  await bench.containerd.kill9();
  await session.write(new TextEncoder().encode("go\n"));
  await session[Symbol.asyncDispose]();
  await bench.io[Symbol.asyncDispose]();
  await bench.containerd.start();
  await bench.replaceIo([id]);
  let log = "";
  for await (const chunk of bench.io.logs(id, { follow: true })) {
    log += new TextDecoder().decode(chunk);
    if (log.endsWith("\n5000\r\n")) break;
  }
  assert.equal(log, `go\r\n${Array.from({ length: 5000 }, (_, n) => `${n + 1}\r\n`).join("")}`);
});

Deno.test("a restarted container appends to its log, a follower sees both lives, release ends it", async () => {
  await using bench = await IoBench.start();
  const options = { args: ["sh", "-c", "echo alive; cat"], stdin: true };
  const id = await bench.run(options);
  const follower = bench.io.logs(id, { follow: true });
  assert.equal(new TextDecoder().decode((await follower.next()).value), "alive\n");
  await bench.client.tasks.kill({ containerId: id, signal: 9 });
  await bench.client.tasks.wait({ containerId: id });
  await bench.client.tasks.delete({ containerId: id });
  await bench.startTask(id, options);
  assert.equal(new TextDecoder().decode((await follower.next()).value), "alive\n");
  const path = bench.io.logPath(id);
  await bench.io.release(id);
  await bench.io.release(id);
  assert((await follower.next()).done);
  await assert.rejects(Deno.stat(path), Deno.errors.NotFound);
  await assert.rejects(text(bench.io.logs(id)), isError("not-found"));
});

Deno.test("garbage collection removes what belongs to nobody and nothing else", async () => {
  await using bench = await IoBench.start();
  const known = "known";
  await bench.io.prepare(known, { tty: false, stdin: true });
  for (const orphan of ["orphan", "live"]) await bench.io.prepare(orphan, { tty: false, stdin: true });
  await bench.replaceIo([known]);
  assert.equal(await bench.io.collectGarbage(new Set(["live"])), 1);
  const names = (path: string) => [...Deno.readDirSync(path)].map(({ name }) => name).sort();
  assert.deepEqual(names(`${bench.containerd.scratch}/logs`), [
    "known.log",
    "known.log.base",
    "live.log",
    "live.log.base",
  ]);
  assert.deepEqual(names(`${bench.stateDir}/stdin`), ["known", "live"]);
});

Deno.test("a full disk costs lines but stops no container, and logging goes on when there is room again", async () => {
  await using bench = await IoBench.start({ maxBytes: 100 << 20, maxFiles: 1 });
  const logDir = `${bench.containerd.scratch}/logs`;
  const mount = async (...args: string[]) => {
    const { success, stderr } = await new Deno.Command("mount", { args: [...args, logDir] }).output();
    assert(success, new TextDecoder().decode(stderr));
  };
  const script =
    "head -c 900000 /dev/zero | tr '\\0' x; echo; touch /tmp/through; until test -e /tmp/go; do sleep 0.05; done; echo back; sleep 1000";
  for (const tty of [false, true]) {
    await mount("-t", "tmpfs", "-o", "size=512k", "tmpfs");
    try {
      const id = await bench.run({ args: ["sh", "-c", script], tty });
      const through = { args: ["sh", "-c", "until test -e /tmp/through; do sleep 0.1; done"] };
      assert.equal((await finish(await bench.io.exec(id, through))).exitCode, 0);
      await mount("-o", "remount,size=4m");
      const session = await bench.io.attach(id, {});
      await finish(await bench.io.exec(id, { args: ["touch", "/tmp/go"] }));
      await until(session.output[Symbol.asyncIterator](), /back/);
      await session[Symbol.asyncDispose]();
    } finally {
      await new Deno.Command("umount", { args: ["-l", logDir] }).output();
    }
  }
});

Deno.test("a shim that writes the log itself is followed just the same", async () => {
  await using bench = await IoBench.start();
  const id = await bench.run({ args: ["sh", "-c", "seq 1 3; exit 2"], plainFile: true });
  assert.equal((await bench.client.tasks.wait({ containerId: id })).exitStatus, 2);
  const follower = bench.io.logs(id, { follow: true });
  let seen = "";
  while (!seen.endsWith("3\n")) seen += new TextDecoder().decode((await follower.next()).value);
  assert.equal(seen, "1\n2\n3\n");
  await follower.return(undefined);
});
