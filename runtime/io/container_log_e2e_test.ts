import assert from "node:assert/strict";
import { finish, IoBench, isError, text, until } from "./testing.ts";

Deno.test("no line is lost or doubled while 200,000 are written, the log is trimmed and containerd is killed", async () => {
  const LINES = 200_000;
  /** Written at a time: two batches are less than a trim leaves, so that no reader is too slow for it. */
  const BATCH = 10_000;
  const filler = "x".repeat(40);
  await using bench = await IoBench.start({ maxBytes: 1 << 20, maxFiles: 2 });
  const script =
    `while read from to && [ "$to" ]; do seq $from $to | while read n; do echo "$n ${filler}"; ` +
    "done; done; echo done; sleep 1000";
  const id = await bench.run({ args: ["sh", "-c", script], stdin: true });
  await using orders = await bench.io.attach(id, { stdin: true });
  const order = async (from: number) => {
    const line = from > LINES ? "end" : `${from} ${from + BATCH - 1}`;
    await orders.write(new TextEncoder().encode(`${line}\n`));
  };
  let expected = 1;
  let ordered = 1;
  let rest = "";
  let killed: Promise<void> | undefined;
  for (; ordered <= BATCH + 1; ordered += BATCH) await order(ordered);
  for await (const chunk of bench.io.logs(id, { follow: true })) {
    const lines = (rest + new TextDecoder().decode(chunk)).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (line === "done") continue;
      assert.equal(line, `${expected} ${filler}`);
      expected++;
    }
    for (; ordered <= LINES + 1 && ordered <= expected + BATCH; ordered += BATCH) await order(ordered);
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
