import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { ExecStartError, execStartError } from "./exec_error.ts";
import { FifoReader, FifoWriter, MAX_PENDING_WRITE_BYTES } from "./fifo.ts";
import { KeyedLock } from "./keyed_lock.ts";
import { Libc } from "./libc.ts";
import { LogFile } from "./log_file.ts";
import { OUTPUT_HIGH_WATER_BYTES, OutputQueue } from "./output_queue.ts";
import { execProcessSpec, MAX_EXEC_BYTES, mergeEnv } from "./process_spec.ts";
import { LogRotator } from "./rotator.ts";
import { taskStdio } from "./stdio.ts";

/** A FIFO in a directory of its own. */
class TestFifo implements AsyncDisposable {
  readonly libc = new Libc();
  private constructor(readonly directory: string, readonly path: string) {}

  static async create(): Promise<TestFifo> {
    const directory = await Deno.makeTempDir({ prefix: "hypercore-fifo-" });
    const fifo = new TestFifo(directory, `${directory}/fifo`);
    fifo.libc.makeFifo(fifo.path);
    return fifo;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.libc[Symbol.dispose]();
    await Deno.remove(this.directory, { recursive: true });
  }
}

/** How many descriptors of this process lead to a file. Others come and go meanwhile: earlier tests still close theirs. */
function descriptorsOf(path: string): number {
  return [...Deno.readDirSync("/proc/self/fd")].filter(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`) === path;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return false;
      throw error;
    }
  }).length;
}

function isError(code: string, message?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    if (message) assert.match(error.message, message);
    return true;
  };
}

Deno.test("a FIFO carries bytes with backpressure and ends when its writer does", async () => {
  await using fifo = await TestFifo.create();
  const reader = new FifoReader(fifo.libc, fifo.path);
  using writer = new FifoWriter(fifo.libc, fifo.path, { reader: "present" });
  const data = crypto.getRandomValues(new Uint8Array(65536));
  const writes = Array.from({ length: 40 }, () => writer.write(data));
  let written = 0;
  for (const write of writes) void write.then(() => written++);
  const chunks = reader.chunks();
  const first = await chunks.next();
  assert(written < 40, "not all of it fits");
  let bytes = first.value!.length;
  const end = writer.end();
  for await (const chunk of chunks) bytes += chunk.length;
  await end;
  await Promise.all(writes);
  assert.equal(bytes, 40 * data.length);
  await assert.rejects(writer.write(data), isError("precondition"));
  assert.equal(descriptorsOf(fifo.path), 0);
});

Deno.test("a FIFO nobody reads is refused, or waited for where that is wanted", async () => {
  await using fifo = await TestFifo.create();
  assert.throws(() => new FifoWriter(fifo.libc, fifo.path, { reader: "present" }), isError("precondition"));
  using writer = new FifoWriter(fifo.libc, fifo.path, { reader: "absent" });
  await writer.write(new Uint8Array(10));
  const stuck = writer.write(new Uint8Array(MAX_PENDING_WRITE_BYTES));
  await assert.rejects(writer.write(new Uint8Array(1)), isError("exhausted"));
  writer[Symbol.dispose]();
  await assert.rejects(stuck, isError("precondition"));
});

Deno.test("a FIFO reader that was never used gives its descriptor back", async () => {
  await using fifo = await TestFifo.create();
  const reader = new FifoReader(fifo.libc, fifo.path);
  assert.equal(descriptorsOf(fifo.path), 1);
  reader[Symbol.dispose]();
  reader[Symbol.dispose]();
  assert.equal(descriptorsOf(fifo.path), 0);
  assert((await reader.chunks().next()).done);
});

Deno.test("FIFO errors name the path", async () => {
  await using fifo = await TestFifo.create();
  assert.throws(() => fifo.libc.makeFifo(fifo.path), isError("failed", /Cannot make FIFO ".*\/fifo"/));
  assert.throws(() => fifo.libc.openFifo("/absent", "read"), isError("failed", /"\/absent"/));
  assert.throws(() => fifo.libc.makeFifo("/tmp/a\0b"), isError("invalid"));
});

Deno.test("an output queue makes its producer wait while it is full, until the consumer reads or it is lifted", async () => {
  const queue = new OutputQueue();
  const data = new Uint8Array(OUTPUT_HIGH_WATER_BYTES);
  await queue.push({ stream: "stdout", data });
  let room = false;
  const pushed = queue.push({ stream: "stderr", data }).then(() => room = true);
  const chunks = queue[Symbol.asyncIterator]();
  await Promise.resolve();
  assert(!room);
  assert.equal((await chunks.next()).value!.stream, "stdout");
  await pushed;
  const waiting = queue.push({ stream: "stdout", data });
  queue.lift();
  await waiting;
  queue.close();
  await queue.push({ stream: "stdout", data });
  assert.equal((await chunks.next()).value!.stream, "stderr");
  assert.equal((await chunks.next()).value!.stream, "stdout");
  assert((await chunks.next()).done);
});

Deno.test("an output queue that is discarded frees its producer, one that broke tells its consumer", async () => {
  const discarded = new OutputQueue();
  const pushed = discarded.push({ stream: "stdout", data: new Uint8Array(OUTPUT_HIGH_WATER_BYTES + 1) });
  discarded.discard();
  await pushed;
  assert.equal(discarded.bytes, 0);
  const broken = new OutputQueue();
  const next = broken[Symbol.asyncIterator]().next();
  broken.close(new Error("broke"));
  await assert.rejects(next, /broke/);
});

Deno.test("a keyed lock keeps the order of a key, not of others, and survives an abort", async () => {
  const lock = new KeyedLock();
  const first = await lock.acquire("a");
  const impatient = new AbortController();
  const second = lock.acquire("a", impatient.signal);
  const third = lock.acquire("a");
  let thirdHasIt = false;
  void third.then(() => thirdHasIt = true);
  impatient.abort(new Error("gave up"));
  await assert.rejects(second, /gave up/);
  await assert.rejects(lock.acquire("a", impatient.signal), /gave up/);
  (await lock.acquire("b"))[Symbol.dispose]();
  assert(!thirdHasIt);
  first[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  while (lock.size > 0) await Promise.resolve();
  assert.equal(lock.size, 0);
});

Deno.test("an exec's spec is the container's but for what is asked", () => {
  const base = {
    args: ["init"],
    env: ["PATH=/bin", "A=1"],
    cwd: "/app",
    user: { uid: 5, gid: 5 },
    noNewPrivileges: true,
  };
  assert.deepEqual(execProcessSpec(base, { args: ["ls"] }), { ...base, terminal: false, args: ["ls"] });
  const spec = execProcessSpec(base, {
    args: ["ls"],
    tty: true,
    window: { columns: 80, rows: 24 },
    env: ["A=2", "B="],
    workingDirectory: "/tmp",
  }, { uid: 1, gid: 2, groups: [3] });
  assert.deepEqual(spec, {
    args: ["ls"],
    env: ["TERM=xterm", "PATH=/bin", "A=2", "B="],
    cwd: "/tmp",
    user: { uid: 1, gid: 2, additionalGids: [3] },
    noNewPrivileges: true,
    terminal: true,
    consoleSize: { width: 80, height: 24 },
  });
  assert.deepEqual(mergeEnv(["A=1", "A=2"], ["B=1"]), ["A=2", "B=1"]);
  assert.throws(() => execProcessSpec(base, { args: ["a"], workingDirectory: "tmp" }), isError("invalid"));
  assert.throws(() => execProcessSpec(base, { args: ["x".repeat(MAX_EXEC_BYTES)] }), isError("invalid"));
});

Deno.test("what runc says of a command that will not start becomes an exit code", () => {
  const said = (text: string) =>
    new RuntimeError(
      "failed",
      `Cannot start task "c": OCI runtime exec failed: unable to start container process: ${text}`,
    );
  const table: [string, number][] = [
    ['exec: "nope": executable file not found in $PATH: unknown', 127],
    ['exec: "/nope": stat /nope: no such file or directory: unknown', 127],
    ['exec: "/etc": permission denied: unknown', 126],
    ['exec: "/etc": is a directory: unknown', 126],
    ["exec /bin/other: exec format error: unknown", 126],
    ['chdir to cwd ("/nope") set in config.json failed: no such file or directory: unknown', 126],
  ];
  for (const [text, exitCode] of table) {
    const error = execStartError(said(text), "cmd", "c");
    assert(error instanceof ExecStartError, text);
    assert.equal(error.exitCode, exitCode, text);
    assert.match(error.message, /^Cannot exec "cmd" in "c": /);
  }
  const other = said("something else");
  assert.equal(execStartError(other, "cmd", "c"), other);
});

Deno.test("stdio of a container survives odd paths, and refuses relative ones", async () => {
  const both = { tty: false, stdin: true };
  const plain = taskStdio({ log: "/var/a b/x?.log", stdin: "/run/i" }, both);
  assert.deepEqual(
    taskStdio({ log: "/var/a b/x?.log", stdin: "/run/i" }, { tty: false, stdin: false, plainFile: true }),
    { ...plain, stdin: "" },
  );
  assert.deepEqual(plain, {
    stdin: "/run/i",
    stdout: "file:///var/a%20b/x%3F.log",
    stderr: "file:///var/a%20b/x%3F.log",
    terminal: false,
  });
  const directory = await Deno.makeTempDir({ prefix: "hypercore it's $(a) " });
  try {
    for (const tty of [false, true]) {
      const { stdout, stderr } = taskStdio({ log: `${directory}/${tty}`, stdin: "" }, { tty, stdin: false });
      assert.equal(stderr, tty ? "" : stdout);
      const url = new URL(stdout);
      assert.deepEqual([...url.searchParams.keys()], ["-c"]);
      const shim = 'exec "$@" 3< <(echo out) 4< <(echo err) 5>/dev/null';
      const child = new Deno.Command("bash", {
        args: ["-c", shim, "_", url.pathname, "-c", url.searchParams.get("-c")!],
      });
      assert.equal((await child.output()).code, 0);
      const lines = (await Deno.readTextFile(`${directory}/${tty}`)).trim().split("\n").sort();
      assert.deepEqual(lines, tty ? ["out"] : ["err", "out"]);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
  assert.throws(() => taskStdio({ log: "x", stdin: "" }, both), isError("invalid"));
});

Deno.test("a rotator goes on past a log it cannot trim, says so once, and counts", async () => {
  const directory = await Deno.makeTempDir({ prefix: "hypercore-rotator-" });
  try {
    const limits = { maxBytes: 1000, maxFiles: 1 };
    const storage = {
      readBase: () => Promise.resolve(0),
      writeBase: () => Promise.resolve(),
      punch: () => Promise.reject(new RuntimeError("exhausted", "Cannot trim")),
    };
    const bad = new LogFile(`${directory}/bad.log`, { limits, storage });
    const good = new LogFile(`${directory}/good.log`, { limits });
    const gone = new LogFile(`${directory}/gone.log`, { limits });
    for (const file of [bad, good]) {
      await file.open();
      await Deno.writeTextFile(file.path, "line\n".repeat(1000));
    }
    const errors: unknown[] = [];
    const log = { debug() {}, info() {}, warn() {}, error: (...args: unknown[]) => void errors.push(args) };
    const rotator = new LogRotator({ files: () => [gone, bad, good], log });
    await rotator.rotate();
    await rotator.rotate();
    assert.deepEqual(rotator.stats, { trims: 1, trimmedBytes: 4000, failures: 2 });
    assert.equal(errors.length, 1);
    const stop = new AbortController();
    const running = rotator.run(stop.signal);
    stop.abort();
    await running;
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
