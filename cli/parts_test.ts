import assert from "node:assert/strict";
import { spawnRequest } from "./commands/spawn.ts";
import { LineSplitter, MAX_LINE_LENGTH } from "./commands/logs.ts";
import { DetachScanner, MAX_DETACH_KEYS, parseDetachKeys } from "./detach_keys.ts";
import { parseHac } from "./hac.ts";
import { InputQueue, MAX_QUEUED_INPUTS } from "./input_queue.ts";
import { agentLog } from "./log.ts";
import { MAX_LAYERS_SHOWN, progressLines } from "./progress.ts";
import { formatAge, formatBytes, formatTable } from "./table.ts";
import { runCli } from "./testing/run_cli.ts";
import type { PullProgress } from "../proto/gen/hypercore/v1/image_pb.ts";

Deno.test("hac.toml of the original becomes a request for its VM shim; flags override it", () => {
  const hac = parseHac(`
    [spacecore]
    name = "Test Node"
    description = "Testing"
    [hardware]
    cores = 4
    memory = 4096
    kernel = "/vmlinux"
    drive = "/rootfs.ext4"
    interface = "ens2"
    ref = "web:1"
  `);
  const request = spawnRequest([], { mem: 256 }, hac);
  assert.equal(request.imageRef, "web:1");
  assert.equal(request.cores, 4);
  assert.equal(request.memory, 256);
  assert.deepEqual(request.runtime, {
    name: "hypercore.example",
    options: {},
    microVm: {
      provider: "firecracker",
      vcpu: 4,
      memoryInMb: 256,
      hostNetDev: "ens2",
      kernel: "/vmlinux",
      rootfsPath: "/rootfs.ext4",
    },
  });
  assert.deepEqual(spawnRequest([], { runtime: "runc" }, hac).runtime, { name: "runc", options: {} });
  assert.equal(
    spawnRequest([], { provider: "cloudhypervisor" }, hac).runtime?.microVm?.provider,
    "cloudhypervisor",
  );
  assert.equal(spawnRequest([], {}, { ref: "a" }).runtime, undefined);
});

Deno.test("hac.toml with an unknown or wrong key is refused by name", () => {
  assert.throws(() => parseHac("[nope]\na = 1"), /unknown section \[nope\]/);
  assert.throws(() => parseHac("[hardware]\ncpus = 1"), /unknown key hardware\.cpus/);
  assert.throws(() => parseHac('[hardware]\ncores = "4"'), /hardware\.cores is not a whole number/);
  assert.throws(() => parseHac("[hardware]\ncores = 0"), /hardware\.cores is 0/);
  assert.throws(() => parseHac("[hardware]\nref = 'a b'"), /not an image reference/);
});

Deno.test("spawn reads ./hac.toml when nothing else names an image", async () => {
  const { err } = await runCli(["spawn", "--api", "127.0.0.1:1"], {
    files: { "hac.toml": '[hardware]\nref = "web:7"' },
  });
  assert.match(err, /Cannot spawn "web:7"/);
});

Deno.test("detach keys are found across chunks; what only began like them is passed on", () => {
  const keys = parseDetachKeys("ctrl-p,ctrl-q");
  assert.deepEqual(keys, [16, 17]);
  const scanner = new DetachScanner(keys);
  assert.deepEqual([...scanner.scan(Uint8Array.of(1, 16)).pass], [1]);
  assert.deepEqual([...scanner.scan(Uint8Array.of(2, 16, 16)).pass], [16, 2, 16]);
  assert.equal(scanner.scan(Uint8Array.of(17, 3)).detached, true);
  const repeated = new DetachScanner(parseDetachKeys("a,a,b"));
  const { pass, detached } = repeated.scan(new TextEncoder().encode("aaab"));
  assert.deepEqual([new TextDecoder().decode(pass), detached], ["a", true]);
  assert.deepEqual([...new DetachScanner([]).scan(Uint8Array.of(16, 17)).pass], [16, 17]);
  assert.throws(() => parseDetachKeys(Array(MAX_DETACH_KEYS + 1).fill("a").join(",")), /more than/);
});

Deno.test("the input queue holds back a producer that is quicker than the network", async () => {
  const queue = new InputQueue<number>();
  for (let item = 0; item < MAX_QUEUED_INPUTS; item++) assert.equal(await queue.push(item), true);
  let through = false;
  const waiting = queue.push(MAX_QUEUED_INPUTS).then((taken) => through = taken);
  await Promise.resolve();
  assert.equal(through, false);
  const iterator = queue[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).value, 0);
  await waiting;
  assert.equal(through, true);
  queue.close();
  assert.equal(await queue.push(1), false);
  const rest: number[] = [];
  for await (const item of { [Symbol.asyncIterator]: () => iterator }) rest.push(item);
  assert.deepEqual(rest, Array.from({ length: MAX_QUEUED_INPUTS }, (_, index) => index + 1));
});

Deno.test("signals and window sizes get past a full input queue, the newest of each kind once", async () => {
  const queue = new InputQueue<string>();
  for (let item = 0; item < MAX_QUEUED_INPUTS; item++) await queue.push("stdin");
  assert.equal(queue.urge("resize", "80x24"), false);
  assert.equal(queue.urge("SIGINT", "SIGINT"), false);
  assert.equal(queue.urge("resize", "100x30"), true);
  queue.close();
  assert.equal(queue.urge("SIGTERM", "SIGTERM"), false);
  const items = await Array.fromAsync(queue);
  assert.deepEqual(items.slice(0, 3), ["100x30", "SIGINT", "stdin"]);
  assert.equal(items.length, MAX_QUEUED_INPUTS + 2);
});

Deno.test("log lines are cut at line ends, across chunks and in the middle of a character", () => {
  const splitter = new LineSplitter();
  const bytes = new TextEncoder().encode("é\nx");
  assert.deepEqual(splitter.push(bytes.subarray(0, 1)), []);
  assert.deepEqual(splitter.push(bytes.subarray(1)), ["é"]);
  assert.deepEqual(splitter.end(), ["x"]);
  assert.equal(new LineSplitter().push(new Uint8Array(MAX_LINE_LENGTH + 1).fill(65)).length, 1);
});

Deno.test("tables pad, show empty cells as a dash, and print nothing that moves the cursor", () => {
  const rows = [["x\x1b[1A", ""], ["y", "z"]];
  assert.equal(formatTable(["A", "BB"], rows), "A      BB\nx?[1A  -\ny      z\n");
  assert.deepEqual([0, 61_000, 7_200_000, 200_000_000].map(formatAge), ["0s", "1m", "2h", "2d"]);
  assert.deepEqual([0, 1023, 1024, 1_500_000].map(formatBytes), ["0 B", "1023 B", "1.0 KiB", "1.4 MiB"]);
});

Deno.test("progress shows a bounded number of layers", () => {
  const layer = { digest: "sha256:00", status: "done" } as PullProgress;
  const lines = progressLines(Array(MAX_LAYERS_SHOWN + 2).fill(layer), "");
  assert.equal(lines.length, MAX_LAYERS_SHOWN + 1);
  assert.match(lines.at(-1)!, /and 2 more layers/);
});

Deno.test("the agent's log is one line a message, whatever is in a field", () => {
  const lines: string[] = [];
  const write = (line: Uint8Array) => void lines.push(new TextDecoder().decode(line));
  agentLog({ level: "info", format: "text", write, now: () => 0 }).warn("pulled", {
    a: "x\ny",
    error: new Error("e"),
    n: 1n,
  });
  agentLog({ level: "info", format: "json", write, now: () => 0 }).info("m", { a: 1 });
  agentLog({ level: "error", format: "text", write }).info("dropped");
  assert.deepEqual(lines, [
    '1970-01-01T00:00:00.000Z warn  pulled a="x\\ny" error=e n=1\n',
    '{"time":"1970-01-01T00:00:00.000Z","level":"info","message":"m","a":1}\n',
  ]);
});

Deno.test("completion scripts of every shell hold every command and flag, and parse", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, out } = await runCli(["completion", shell]);
    assert.equal(code, 0);
    for (const word of ["spawn", "attach", "image", "image-ref"]) {
      assert.ok(out.includes(word), `${shell}: ${word}`);
    }
  }
  const { out } = await runCli(["completion", "bash"]);
  const script = `${out}\nCOMP_WORDS=(hypercore image l); COMP_CWORD=2; _hypercore; echo "\${COMPREPLY[@]}"
COMP_WORDS=(hypercore spawn --im); COMP_CWORD=2; _hypercore; echo "\${COMPREPLY[@]}"`;
  const { stdout, success } = await new Deno.Command("bash", { args: ["-c", script] }).output();
  assert.ok(success);
  assert.equal(new TextDecoder().decode(stdout), "load list ls\n--image-ref --image\n");
});
