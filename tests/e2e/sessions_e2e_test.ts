import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { ExecStartFailureSchema } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { DEADLINE_MS } from "./agent_under_test.ts";
import {
  type AttachMessage,
  type ExecMessage,
  GrpcApi,
  Outbox,
  rejection,
  startGrpcNode,
} from "./grpc_api.ts";

const SIGTERM = 15;
const SIGKILL = 9;
/** Matches nothing: reads on to the end. */
const NEVER = /[^\s\S]/;

Deno.test("exec over gRPC", async (t) => {
  await using there = await startGrpcNode();
  const { api } = there;
  const id = await there.spawn({ args: ["sleep", "1000"], env: ["COLOUR=red"] });

  await t.step("tells the streams apart and gives the exit code", async () => {
    assert.deepEqual(await api.run(id, "echo out; echo err >&2; exit 42"), ["out\n", "err\n", 42]);
  });

  await t.step("takes environment, user and working directory", async () => {
    const start = { env: ["A=b"], user: "app", workingDirectory: "/tmp" };
    const [stdout] = await api.run(id, "echo $COLOUR $A $(id -un) $(pwd)", start);
    assert.equal(stdout, "red b app /tmp\n");
  });

  await t.step("streams stdin to its end, more than fits any buffer", async () => {
    const session = api.exec({ id, args: ["wc", "-c"], stdin: true });
    const block = new Uint8Array(512 << 10);
    for (let n = 0; n < 16; n++) session.send({ case: "stdin", value: block });
    session.send({ case: "stdinClosed", value: true });
    assert.equal(await session.exitCode, 0);
    assert.equal(session.stdout, `${16 * block.length}\n`);
    session.end();
  });

  await t.step("delivers signals", async () => {
    const session = api.exec({
      id,
      args: ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"],
    });
    await session.until(/up/);
    session.send({ case: "signal", value: SIGTERM });
    assert.equal(await session.exitCode, 7);
    const other = api.exec({ id, args: ["sleep", "1000"] });
    await other.until(/^/);
    other.send({ case: "signal", value: SIGKILL });
    assert.equal(await other.exitCode, 128 + SIGKILL);
    session.end();
    other.end();
  });

  await t.step("has a terminal of the wanted size, which can be resized", async () => {
    const window = { columns: 91, rows: 33 };
    const session = api.exec({ id, args: ["sh"], tty: true, stdin: true, window });
    await session.until(/[#$] /);
    session.type("stty size; echo error >&2\n");
    await session.until(/33 91\r\n(.*\r\n)*error\r\n/);
    session.send({ case: "resize", value: { columns: 120, rows: 40 } });
    session.type("stty size\n");
    await session.until(/40 120\r\n/);
    session.type("exit 5\n");
    assert.equal(await session.exitCode, 5);
    assert.equal(session.stderr, "");
    session.end();
  });

  await t.step("tells a command that cannot be started by its exit code", async () => {
    const table: [string[], number, RegExp][] = [
      [["/nonexistent"], 127, /executable file not found/],
      [["/etc/passwd"], 126, /permission denied/],
    ];
    for (const [args, code, message] of table) {
      const error = await rejection(api.exec({ id, args }).exitCode);
      assert.equal(error.code, Code.FailedPrecondition);
      assert.match(error.rawMessage, message);
      assert.equal(error.findDetails(ExecStartFailureSchema)[0]?.exitCode, code);
    }
    const error = await rejection(api.exec({ id: "0123456789ab", args: ["true"] }).exitCode);
    assert.deepEqual([error.code, error.details], [Code.NotFound, []]);
  });

  await t.step("refuses what is wrong, and a session that does not begin with its start", async () => {
    const table: [ExecMessage[], RegExp][] = [
      [[{ case: "stdin", value: new Uint8Array(1) }], /first message must be its start/],
      [[{ case: "start", value: { id, args: [] } }], /a command is needed/],
      [[{ case: "start", value: { id: "../../etc/shadow", args: ["true"] } }], /Cannot accept id/],
      [[{ case: "start", value: { id, args: ["true"], env: ["novalue"] } }], /KEY=value/],
      [[sleep(), { case: "signal", value: 99 }], /signal "99"/],
      [[sleep(), { case: "resize", value: { columns: 0, rows: 1 } }], /columns "0"/],
      [[sleep(), { case: "resize", value: { columns: 9, rows: 9 } }], /no terminal/],
      [[sleep(), { case: "stdin", value: new Uint8Array(1) }], /stdin is not open/],
      [[sleep(), sleep()], /it runs/],
    ];
    function sleep(): ExecMessage {
      return { case: "start", value: { id, args: ["sleep", "1000"] } };
    }
    for (const [requests, message] of table) {
      const outbox = new Outbox<{ request: ExecMessage }>();
      for (const request of requests) outbox.send({ request });
      const calling = async () => {
        for await (const _ of api.workloads.exec(outbox, { timeoutMs: DEADLINE_MS }));
      };
      assert.match((await rejection(calling())).rawMessage, message);
      outbox.end();
    }
    await processesAre(api, id, /^sleep 1000$/);
  });

  await t.step("ends with its client: by cancellation, by deadline and by a broken connection", async () => {
    const leave = new AbortController();
    const cancelled = api.exec({ id, args: ["sleep", "2001"] }, { signal: leave.signal });
    await cancelled.until(/^/);
    leave.abort();
    assert.equal((await rejection(cancelled.exitCode)).code, Code.Canceled);

    const late = api.exec({ id, args: ["sleep", "2002"] }, { timeoutMs: 1_000 });
    assert.equal((await rejection(late.exitCode)).code, Code.DeadlineExceeded);

    using other = new GrpcApi(there.node);
    const broken = other.exec({ id, args: ["sleep", "2003"], stdin: true });
    await broken.until(/^/);
    other[Symbol.dispose]();
    await rejection(broken.exitCode);
    await processesAre(api, id, /^sleep 1000$/);
  });

  await t.step("ends when the container is stopped", async () => {
    const session = api.exec({ id, args: ["sleep", "1000"] });
    await session.until(/^/);
    await api.cluster.stop({ id, graceMs: 1 });
    assert.equal(await session.exitCode, 128 + SIGKILL);
    session.end();
  });
});

Deno.test("attach over gRPC", async (t) => {
  await using there = await startGrpcNode();
  const { api } = there;
  const attach = async (requests: AttachMessage[], until: RegExp) => {
    const outbox = new Outbox<{ request: AttachMessage }>();
    for (const request of requests) outbox.send({ request });
    let [text, tty] = ["", false];
    const leave = new AbortController();
    const options = { timeoutMs: DEADLINE_MS, signal: leave.signal };
    for await (const { response } of api.workloads.attach(outbox, options)) {
      if (response.case === "tty") tty = response.value;
      if (response.case === "output") text += new TextDecoder().decode(response.value);
      if (response.case === "exitCode") return { text, tty, exitCode: response.value };
      if (until.test(text)) break;
    }
    outbox.end();
    leave.abort();
    return { text, tty };
  };
  const stdin = (text: string): AttachMessage => ({ case: "stdin", value: new TextEncoder().encode(text) });

  await t.step("types into a terminal, resizes it, and detaches without ending the container", async () => {
    const id = await there.spawn({ args: ["sh"], tty: true, stdin: true });
    const window = { columns: 70, rows: 20 };
    const start: AttachMessage = { case: "start", value: { id, stdin: true, window, tail: 100 } };
    const first = await attach([start, stdin("stty size\n")], /20 70\r\n/);
    assert.equal(first.tty, true);
    const resize: AttachMessage = { case: "resize", value: { columns: 80, rows: 25 } };
    await attach([start, resize, stdin("stty size\n")], /25 80\r\n/);
    const { states } = await api.cluster.list({});
    assert.deepEqual(states[0].workloads.map(({ status, generation }) => [status, generation]), [[
      "running",
      1n,
    ]]);
    const last = await attach([start, stdin("exit 3\n")], NEVER);
    assert.equal(last.exitCode, 3);
    await api.cluster.stop({ id });
  });

  await t.step(
    "replays the last lines, and gives the end of stdin to a process without a terminal",
    async () => {
      const id = await there.spawn({
        args: ["sh", "-c", "echo one; echo two; cat; echo end; exit 9"],
        stdin: true,
      });
      const start = (tail: number): AttachMessage => ({ case: "start", value: { id, stdin: true, tail } });
      const seen = await attach([start(10)], /two\n/);
      assert.equal(seen.tty, false);
      const rest = await attach([start(1), stdin("typed\n"), { case: "stdinClosed", value: true }], NEVER);
      assert.equal(rest.text, "two\ntyped\nend\n");
      assert.equal(rest.exitCode, 9);
      await api.cluster.stop({ id });
    },
  );

  await t.step("passes signals on", async () => {
    const script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.05; done";
    const id = await there.spawn({ args: ["sh", "-c", script] });
    await attach([{ case: "start", value: { id, tail: 10 } }], /up/);
    const ended = await attach([{ case: "start", value: { id } }, { case: "signal", value: SIGTERM }], NEVER);
    assert.deepEqual([ended.text, ended.exitCode], ["bye\n", 4]);
    await api.cluster.stop({ id });
  });
});

/** Waits until all that runs in a container, besides what looks, are these. */
async function processesAre(api: GrpcApi, id: string, expected: RegExp): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  for (;;) {
    const [stdout] = await api.run(
      id,
      "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null",
    );
    const lines = stdout.split("\n").map((line) => line.trim())
      .filter((line) => line !== "" && !/^(sh -c for|tr )/.test(line));
    if (lines.length === 1 && expected.test(lines[0])) return;
    if (performance.now() > endMs) throw new Error(`there still runs: ${lines.join("; ")}`);
  }
}
