import assert from "node:assert/strict";
import { ExecStartError } from "./exec_error.ts";
import { MAX_DRAIN_BYTES } from "./exec_session.ts";
import { finish, IoBench, isError, MAX_TEST_EXECS, text, until } from "./testing.ts";

const SLEEP = { args: ["sleep", "1000"] };
const SIGTERM = 15;

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

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

function threads(): number {
  return Number(/^Threads:\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/status"))![1]);
}

/** Exec'd processes containerd still knows of, by pid: all but the init. */
async function execsOf(bench: IoBench, id: string): Promise<number> {
  const { processes } = await bench.client.tasks.listPids({ containerId: id });
  return processes.length - 1;
}
