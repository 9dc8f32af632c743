import assert from "node:assert/strict";
import { readCgroup, readCgroupLimits } from "../support/cgroup.ts";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";

const IMAGE = "test/web:1";

/** The number after a key in a file of the workload's cgroup. */
function cgroupValue(
  agent: LiveAgent,
  place: { id: string; controller: string; file: string },
  key = "",
): number {
  const text = readCgroup({ namespace: agent.namespace, id: place.id }, place) ?? "";
  return Number(new RegExp(`^${key}\\s*(\\d+)`, "m").exec(text)?.[1]);
}

Deno.test("a workload that asks for a fifth of a CPU is throttled to it", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const burn = ["--", "/bin/sh", "-c", "while :; do :; done"];
  const id = await agent.spawn("--image-ref", IMAGE, "--cpu", "0.2", "--mem", "64", ...burn);
  const stat = (key: string) => cgroupValue(agent, { id, controller: "cpu", file: "cpu.stat" }, key);
  await until("it is throttled", () => stat("nr_throttled") > 5);
  const before = { periods: stat("nr_periods"), throttled: stat("nr_throttled") };
  await until("periods go by", () => stat("nr_periods") >= before.periods + 20);
  // On a busy machine there may be periods in which it does not even get its fifth.
  await until("it is throttled again", () => stat("nr_throttled") > before.throttled);
  assert.equal(readCgroupLimits({ namespace: agent.namespace, id }).cpuQuotaUs, 20_000);
});

Deno.test("a workload over its memory is killed and started again under its id and URL, later each time", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const web = ["--image-ref", IMAGE, "--mem", "32", "--ports", "8080:8080"];
  const id = await agent.spawn(...web);
  await until("the page comes", async () => (await agent.page(id)).startsWith("Hello"));

  const watching = new AbortController();
  const events = watchEvents(agent, watching.signal);
  // The kernel kills the process that outgrows the limit; process 1 ends with it.
  const hungry = await agent.spawn(
    "--image-ref",
    IMAGE,
    "--mem",
    "16",
    "--",
    "/bin/sh",
    "-c",
    "tail /dev/zero; exit 9",
  );
  const of = async () => (await agent.list()).find((workload) => workload.id === hungry)!;
  await until("it has restarted twice", async () => Number((await of()).restarts) >= 2);
  assert.equal((await of()).id, hungry);
  await until("the events tell", () => {
    const types = new Set(events.seen.filter((event) => event.id === hungry).map((event) => event.type));
    return ["oom-killed", "exited", "restart-scheduled", "started"].every((type) => types.has(type));
  });
  const restarts = () => events.seen.filter(({ id, type }) => id === hungry && type === "restart-scheduled");
  await until("the events tell of two restarts", () => restarts().length >= 2);
  const pauses = restarts().map(({ detail }) => Number(/in (\d+) s/.exec(detail)![1]));
  assert.deepEqual(pauses.slice(0, 2).sort(), pauses.slice(0, 2), "the pauses grow");
  assert.ok(pauses[1] > pauses[0] || pauses[1] === 2, String(pauses));
  await until("the list tells why", async () => {
    const { status, reason, exitCode } = await of();
    return status === "backing-off" && /exit code/.test(String(reason)) && Number(exitCode) > 0;
  });
  watching.abort();
  await events.ended;

  assert.match(await agent.page(id), /^Hello/, "its neighbour served all the time");
  assert.equal((await agent.list()).find((workload) => workload.id === id)!.restarts, 0);
  await agent.ok("stop", hungry);
  await agent.ok("stop", id);
});

Deno.test("a workload has no more processes than its limit, and its limit only", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "--pids-limit", "16");
  const place = { id, controller: "pids" };
  assert.equal(cgroupValue(agent, { ...place, file: "pids.max" }), 16);
  const { err, code } = await agent.cli([
    "exec",
    id,
    "sh",
    "-c",
    "for i in $(seq 40); do sleep 5 & done; wait",
  ]);
  assert.match(err, /can't fork/);
  assert.notEqual(code, 0);
  assert.ok(cgroupValue(agent, { ...place, file: "pids.current" }) <= 16);
});

interface SeenEvent {
  id: string;
  type: string;
  detail: string;
}

/** Follows the agent's events, by its gRPC API as curl speaks it: Connect's server stream. */
function watchEvents(agent: LiveAgent, signal: AbortSignal): { seen: SeenEvent[]; ended: Promise<void> } {
  const seen: SeenEvent[] = [];
  const token = Deno.readTextFileSync(`${agent.dataDir}/token`).trim();
  // One enveloped empty message: flags, length, "{}".
  const body = `${agent.dir}/watch.bin`;
  Deno.writeFileSync(body, Uint8Array.of(0, 0, 0, 0, 2, 0x7b, 0x7d));
  const child = agent.host.spawn("curl", [
    ...["-sN", "-H", "content-type: application/connect+json", "-H", `authorization: Bearer ${token}`],
    ...["--data-binary", `@${body}`, "http://127.0.0.1:8000/hypercore.v1.WorkloadService/WatchEvents"],
  ], { stdin: "null", stdout: "piped", stderr: "null" });
  signal.addEventListener("abort", () => child.kill("SIGTERM"));
  const ended = (async () => {
    let text = "";
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += part;
      // The envelopes' lengths are binary; the messages are flat objects.
      const objects = [...text.matchAll(/\{[^{}]*\}/g)];
      for (const [object] of objects) seen.push(JSON.parse(object));
      const last = objects.at(-1);
      if (last !== undefined) text = text.slice(last.index + last[0].length);
    }
    await child.status;
  })();
  return { seen, ended };
}
