import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import { ExecStartFailureSchema } from "../proto/gen/hypercore/v1/workload_pb.ts";
import { type FakeApi, serveFakeApi } from "./testing/fake_api.ts";
import { type CliWorld, runCli } from "./testing/run_cli.ts";

/** The connection pool of the HTTP/2 client closes after an idle time, so these tests do not wait for it. */
const leaks = { sanitizeOps: false, sanitizeResources: false };

async function against(fake: FakeApi, args: string[], world: CliWorld = {}) {
  await using api = await serveFakeApi(fake);
  return await runCli([...args.slice(0, 1), "--api", api.address, ...args.slice(1)], world);
}

Deno.test({ ...leaks, name: "spawn sends what the flags say and prints id and URL" }, async () => {
  const seen: unknown[] = [];
  const workloads: FakeApi["workloads"] = {
    async *spawn(request) {
      const { imageRef, cores, milliCpus, memory, ports, env, name, args } = request;
      seen.push({ imageRef, cores, milliCpus, memory, ports, env, name, args });
      yield { event: { case: "step", value: "starting" } };
      yield { event: { case: "result", value: { id: "w1", url: "http://w1.example.com", node: "n1" } } };
    },
  };
  const flags = [
    "spawn",
    "--image-ref",
    "web:1",
    "--cpu",
    "1.5",
    "--mem",
    "1g",
    "--ports",
    "443:8080",
    "--env",
    "A=b,c",
    "--env",
    "D=",
  ];
  const plain = await against({ workloads }, [...flags, "--name", "web", "--", "-v", "x"]);
  assert.deepEqual(plain, { code: 0, out: "w1\nhttp://w1.example.com\n", err: "" });
  assert.deepEqual(seen, [{
    imageRef: "web:1",
    cores: 2,
    milliCpus: 1500,
    memory: 1024,
    ports: { 443: 8080 },
    env: ["A=b,c", "D="],
    name: "web",
    args: ["-v", "x"],
  }]);
  const json = await against({ workloads }, [...flags, "--json"]);
  assert.deepEqual(JSON.parse(json.out), { id: "w1", url: "http://w1.example.com", node: "n1" });
});

Deno.test({ ...leaks, name: "spawn without ports prints the id alone" }, async () => {
  const workloads: FakeApi["workloads"] = {
    async *spawn() {
      yield { event: { case: "result", value: { id: "w1", url: "", node: "n1" } } };
    },
  };
  assert.equal((await against({ workloads }, ["spawn", "--image", "a"])).out, "w1\n");
});

Deno.test({ ...leaks, name: "spawn shows progress on a terminal only, and wipes it" }, async () => {
  const workloads: FakeApi["workloads"] = {
    async *spawn() {
      const progress = {
        digest: "sha256:0123456789abcdef",
        status: "downloading",
        bytes: 1024n,
        totalBytes: 2048n,
        bytesPerSecond: 512n,
      };
      yield { event: { case: "pull", value: progress } };
      yield { event: { case: "result", value: { id: "w1", url: "u" } } };
    },
  };
  const terminal = await against({ workloads }, ["spawn", "--image", "a"], { terminal: true });
  assert.match(terminal.err, /0123456789ab {2}downloading 1\.0 KiB \/ 2\.0 KiB {2}512 B\/s/);
  assert.ok(terminal.err.endsWith("\x1b[1A\x1b[J"));
  assert.equal((await against({ workloads }, ["spawn", "--image", "a"])).err, "");
});

Deno.test(
  { ...leaks, name: "list prints a table, ids, or an array with one object a workload" },
  async () => {
    const cluster: FakeApi["cluster"] = {
      list: () => ({
        states: [{
          node: { id: "n1", ip: "" },
          workloads: [{
            id: "w1",
            status: "running",
            url: "http://w1.example.com",
            sourceRequest: {
              imageRef: "web:1",
              cores: 2,
              memory: 64,
              ports: { 80: 8080 },
              env: ["SECRET=x"],
            },
          }],
        }],
      }),
    };
    assert.match(
      (await against({ cluster }, ["list"])).out,
      /^ID +NAME .*\nw1 +- +web:1 +n1 +running +80:8080 /,
    );
    assert.equal((await against({ cluster }, ["list", "-q"])).out, "w1\n");
    const { out } = await against({ cluster }, ["list", "--json"]);
    const [only, ...others] = JSON.parse(out);
    assert.deepEqual([only.id, only.image, only.node, only.cpus, only.ports, others], [
      "w1",
      "web:1",
      "n1",
      2,
      { 80: 8080 },
      [],
    ]);
    assert.ok(!out.includes("SECRET"));
    assert.deepEqual(
      JSON.parse((await against({ cluster: { list: () => ({ states: [] }) } }, ["list", "--json"])).out),
      [],
    );
  },
);

Deno.test(
  { ...leaks, name: "stop takes the id as argument or by --id, and cluster stop is the same" },
  async () => {
    const stopped: string[] = [];
    const cluster: FakeApi["cluster"] = {
      stop(request) {
        stopped.push(`${request.id} ${request.graceMs}`);
        return { id: "n1", ip: "" };
      },
    };
    assert.equal((await against({ cluster }, ["stop", "w1", "--grace", "9"])).out, "w1\n");
    assert.equal(
      (await against({ cluster }, ["stop", "--id", "w2", "--json"])).out,
      '{"id":"w2","node":"n1"}\n',
    );
    await using api = await serveFakeApi({ cluster });
    assert.equal((await runCli(["cluster", "stop", "w3", "--grpc-bind-addr", api.address])).code, 0);
    assert.deepEqual(stopped, ["w1 9", "w2 undefined", "w3 undefined"]);
  },
);

Deno.test({ ...leaks, name: "logs passes bytes through, and as JSON gives one object a line" }, async () => {
  const data = ["on", "e\ntw", "o"].map((text) => new TextEncoder().encode(text));
  const workloads: FakeApi["workloads"] = {
    async *streamLogs() {
      for (const chunk of data) yield { data: chunk };
    },
  };
  assert.equal((await against({ workloads }, ["logs", "w"])).out, "one\ntwo");
  assert.equal(
    (await against({ workloads }, ["logs", "w", "--json"])).out,
    '{"id":"w","line":"one"}\n{"id":"w","line":"two"}\n',
  );
});

Deno.test({ ...leaks, name: "exec passes input, output and exit code" }, async () => {
  const workloads: FakeApi["workloads"] = {
    async *exec(requests) {
      for await (const { request } of requests) {
        if (request.case === "start") {
          yield { response: { case: "started", value: 7 } };
          yield {
            response: { case: "stderr", value: new TextEncoder().encode(request.value.args.join(" ")) },
          };
        }
        if (request.case === "stdin") yield { response: { case: "stdout", value: request.value } };
        if (request.case === "stdinClosed") yield { response: { case: "exitCode", value: 42 } };
      }
    },
  };
  const stdin = new Blob(["hello"]).stream();
  const result = await against({ workloads }, ["exec", "-i", "w", "cat", "-n", "--json"], { stdin });
  assert.deepEqual(result, { code: 42, out: "hello", err: "cat -n --json" });
  for (const words of [["w", "--", "ls", "--", "-l"], ["--id", "w", "--", "ls", "--", "-l"]]) {
    const input = { stdin: new Blob([]).stream() };
    assert.equal((await against({ workloads }, ["exec", "-i", ...words], input)).err, "ls -- -l");
  }
});

Deno.test({
  ...leaks,
  name: "exec reports its own failures as 125, a missing program as 127, one it may not run as 126",
}, async () => {
  const failing = (codes: number[]): FakeApi => ({
    workloads: {
      // deno-lint-ignore require-yield
      async *exec() {
        const details = codes.map((code) => ({ desc: ExecStartFailureSchema, value: { exitCode: code } }));
        throw new ConnectError("it cannot be run", Code.FailedPrecondition, undefined, details);
      },
    },
  });
  for (
    const [codes, expected] of [[[], 125], [[127], 127], [[126], 126], [[0], 125], [[300], 125]] as const
  ) {
    assert.equal((await against(failing([...codes]), ["exec", "w", "x"])).code, expected);
  }
  assert.equal((await runCli(["exec", "w"])).code, 125);
});

Deno.test(
  { ...leaks, name: "attach goes raw, detaches on its keys and leaves the terminal as it was" },
  async () => {
    const raw: boolean[] = [];
    const received: string[] = [];
    const workloads: FakeApi["workloads"] = {
      inspect: () => ({ workload: { id: "w", sourceRequest: { tty: true, stdin: true } } }),
      async *attach(requests) {
        yield { response: { case: "tty", value: true } };
        for await (const { request } of requests) {
          if (request.case === "stdin") received.push(new TextDecoder().decode(request.value));
          if (request.case === "detach") return;
        }
      },
    };
    const stdin = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(new TextEncoder().encode("ls\r"));
        controller.enqueue(new TextEncoder().encode("pwd\r\x10"));
        controller.enqueue(Uint8Array.of(0x11));
      },
    });
    const result = await against({ workloads }, ["attach", "w"], {
      stdin,
      terminal: true,
      onRaw: (on) => raw.push(on),
    });
    assert.equal(result.code, 0);
    assert.deepEqual(raw, [true, false]);
    assert.deepEqual(received, ["ls\r", "pwd\r"], "what was typed before the keys arrives");
  },
);

Deno.test({ ...leaks, name: "exec without a terminal passes signals on" }, async () => {
  const workloads: FakeApi["workloads"] = {
    async *exec(requests) {
      for await (const { request } of requests) {
        if (request.case === "start") {
          yield { response: { case: "stdout", value: new TextEncoder().encode("up") } };
        }
        if (request.case === "signal") yield { response: { case: "exitCode", value: 128 + request.value } };
      }
    },
  };
  const raise = new Map<string, () => void>();
  const result = await against({ workloads }, ["exec", "w", "sleep", "9"], {
    onListen: (signal, listener) => raise.set(signal, listener),
    onOut: () => raise.get("SIGTERM")!(),
  });
  assert.equal(result.code, 143);
});

Deno.test(
  { ...leaks, name: "a signal that cannot be passed on ends the session when it comes again" },
  async () => {
    const workloads: FakeApi["workloads"] = {
      async *exec(_requests, { signal }) {
        yield { response: { case: "started", value: 1 } };
        yield { response: { case: "stdout", value: new TextEncoder().encode("up") } };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    };
    const raise = new Map<string, () => void>();
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
    });
    const result = await against({ workloads }, ["exec", "-i", "w", "sleep", "9"], {
      stdin: endless,
      onListen: (signal, listener) => raise.set(signal, listener),
      async onOut() {
        // The process takes nothing, so the connection is soon full.
        await new Promise((resolve) => setTimeout(resolve, 300));
        for (let time = 0; time < 3; time++) raise.get("SIGINT")!();
      },
    });
    assert.equal(result.code, 130);
  },
);

Deno.test({
  ...leaks,
  name: "the token comes from the flag, the environment or the data directory of this machine",
}, async () => {
  const fake: FakeApi = { token: "s3cret", cluster: { list: () => ({ states: [] }) } };
  assert.equal((await against(fake, ["list", "--token", "s3cret"])).code, 0);
  assert.equal((await against(fake, ["list"], { env: { HYPERCORE_TOKEN: "s3cret" } })).code, 0);
  assert.equal(
    (await against(fake, ["list"], { files: { "/var/lib/hypercore/token": "s3cret\n" } })).code,
    0,
  );
  assert.equal(
    (await against(fake, ["list", "--data-dir", "/d"], { files: { "/d/token": "s3cret" } })).code,
    0,
  );
  const without = await against(fake, ["list"]);
  assert.equal(without.code, 1);
  assert.match(
    without.err,
    /^hypercore: Cannot list workloads: .* wants a valid token: --token, HYPERCORE_TOKEN/,
  );
});

Deno.test({ ...leaks, name: "a missing agent is one line that says what to do" }, async () => {
  const result = await runCli(["list", "--api", "127.0.0.1:1"]);
  assert.equal(result.code, 1);
  assert.match(
    result.err,
    /^hypercore: Cannot list workloads: no agent answers at 127\.0\.0\.1:1; start one with .*\n$/,
  );
});

Deno.test({ ...leaks, name: "an agent's refusal is one line, made safe for a terminal" }, async () => {
  const cluster: FakeApi["cluster"] = {
    stop() {
      throw new ConnectError("no\x1b[2J such\nworkload", Code.NotFound);
    },
  };
  const result = await against({ cluster }, ["stop", "w9"]);
  assert.deepEqual(result, { code: 1, out: "", err: 'hypercore: Cannot stop "w9": no?[2J such?workload\n' });
});

Deno.test({ ...leaks, name: "an agent's own sentence stands alone" }, async () => {
  const cluster: FakeApi["cluster"] = {
    stop() {
      throw new ConnectError('Cannot find workload "w9": no such id', Code.NotFound);
    },
  };
  assert.equal(
    (await against({ cluster }, ["stop", "w9"])).err,
    'hypercore: Cannot find workload "w9": no such id\n',
  );
});

Deno.test(
  { ...leaks, name: "an agent whose containerd is away is not taken for an agent that is away" },
  async () => {
    const message =
      'Cannot create task "w9": containerd does not answer (connect ECONNREFUSED /c.sock, stream closed)';
    const cluster: FakeApi["cluster"] = {
      stop() {
        throw new ConnectError(message, Code.Unavailable);
      },
    };
    assert.equal((await against({ cluster }, ["stop", "w9"])).err, `hypercore: ${message}\n`);
  },
);

Deno.test({ ...leaks, name: "image commands pull, load, list and remove" }, async () => {
  let loaded = 0;
  const image = {
    name: "docker.io/library/web:1",
    digest: "sha256:00",
    sizeBytes: 3n,
    platform: "linux/amd64",
  };
  const images: FakeApi["images"] = {
    async *pull() {
      yield { event: { case: "image", value: image } };
    },
    async load(requests) {
      for await (const { data } of requests) loaded += data.length;
      return { images: [image] };
    },
    listImages: () => ({ images: [image] }),
    removeImage: () => ({}),
  };
  await using api = await serveFakeApi({ images });
  const image_ = (args: string[], world?: CliWorld) =>
    runCli(["image", ...args, "--api", api.address], world);
  assert.equal((await image_(["pull", "web:1"])).out, "docker.io/library/web:1 sha256:00\n");
  assert.equal((await image_(["load"], { stdin: new Blob(["x".repeat(600_000)]).stream() })).code, 0);
  assert.equal(loaded, 600_000);
  assert.equal(JSON.parse((await image_(["list", "--json"])).out)[0].sizeBytes, 3);
  assert.equal((await image_(["rm", "web:1"])).out, "web:1\n");
  assert.match((await image_(["load", "/nonexistent"])).err, /^hypercore: Cannot load "\/nonexistent": /);
});
