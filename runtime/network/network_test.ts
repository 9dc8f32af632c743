import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { guestLink, pluginChain } from "./chain.ts";
import { CniDriver } from "./cni.ts";
import { MAX_COMMAND_OUTPUT_BYTES, runCommand } from "./command.ts";
import { parseListing, ruleset } from "./isolation.ts";
import { KeyedLocks } from "./locks.ts";
import { parseSubnet } from "./subnet.ts";

Deno.test("subnets that cannot be are refused with the reason", () => {
  assert.deepEqual(parseSubnet("10.0.0.0/8"), { cidr: "10.0.0.0/8", gateway: "10.0.0.1" });
  const cases: [string, RegExp][] = [
    ["", /not an IPv4 network/],
    ["fd00::/64", /not an IPv4 network/],
    ["10.0.0.0", /not an IPv4 network/],
    ["10.0.0.256/24", /over 255/],
    ["10.0.0.0/7", /prefix/],
    ["10.0.0.0/29", /prefix/],
    ["192.168.127.5/24", /did you mean 192\.168\.127\.0\/24/],
    ["127.0.0.0/8", /not a network hosts may have/],
    ["224.0.0.0/8", /not a network hosts may have/],
    ["169.254.0.0/16", /not a network hosts may have/],
  ];
  for (const [text, reason] of cases) assert.throws(() => parseSubnet(text), reason, text);
});

Deno.test("the chain is ptp, firewall, and tc-redirect-tap for VMs", () => {
  const options = { subnet: parseSubnet("10.1.0.0/24"), ipamDir: "/d" };
  assert.deepEqual(pluginChain({ ...options, tap: false }).map((plugin) => plugin.type), ["ptp", "firewall"]);
  assert.equal(pluginChain({ ...options, tap: true }).at(-1)?.type, "tc-redirect-tap");
});

Deno.test("results without an address, a host interface or a sane name give no link", () => {
  const good = {
    cniVersion: "1.0.0",
    interfaces: [{ name: "veth1" }, { name: "eth0", sandbox: "/n" }],
    ips: [{ address: "10.1.0.2/24", gateway: "10.1.0.1" }],
  };
  assert.deepEqual(guestLink(good), { address: "10.1.0.2", gateway: "10.1.0.1", hostInterface: "veth1" });
  assert.equal(guestLink({ ...good, ips: [] }), undefined);
  assert.equal(guestLink({ ...good, interfaces: [{ name: "eth0", sandbox: "/n" }] }), undefined);
  assert.equal(guestLink({ ...good, interfaces: [{ name: 'x" drop' }] }), undefined);
});

Deno.test("a ruleset names its guests, and a listing is taken apart again", () => {
  const guest = { address: "10.1.0.2", gateway: "10.1.0.1", hostInterface: "veth1" };
  const text = ruleset(parseSubnet("10.1.0.0/24"), [guest]);
  assert.match(text, /^table inet hypercore_10_1_0_0_24$/m);
  const { rules, sources } = parseListing(text);
  assert.deepEqual([...sources], ["veth1 10.1.0.2"]);
  assert.doesNotMatch(rules, /veth1/);
});

Deno.test("a plugin that has begun may come to its end after a cancellation, for a while; a canceled call is not made", async () => {
  const abort = new AbortController();
  let calls = 0;
  const cni = new CniDriver({
    cniPath: ["/bin"],
    run: (request) => {
      calls++;
      abort.abort();
      assert.equal(request.signal?.aborted, false, "its children would be on their own");
      return Promise.resolve({ code: 0, stdout: "{}", stderr: "" });
    },
  });
  const call = { network: "n", plugin: { type: "true" }, containerId: "c", netnsPath: "/n", ifName: "eth0" };
  const { signal } = abort;
  assert.deepEqual(await cni.call({ ...call, verb: "ADD", signal }), {});
  await assert.rejects(
    cni.call({ ...call, verb: "ADD", signal }),
    (error: unknown) => error instanceof RuntimeError && error.code === "canceled",
  );
  const early = new AbortController();
  const finding = cni.call({ ...call, verb: "ADD", signal: early.signal });
  early.abort();
  await assert.rejects(finding, /canceled/, "canceled while the plugin is looked for");
  assert.equal(calls, 1);

  const other = new AbortController();
  const hanging = new CniDriver({
    cniPath: ["/bin"],
    canceledMs: 20,
    run: ({ signal }) => {
      other.abort(new Error("enough"));
      return new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason)));
    },
  });
  await assert.rejects(hanging.call({ ...call, verb: "ADD", signal: other.signal }), /enough/);
});

Deno.test("plugin errors come as typed errors, from stdout or stderr, JSON or not", async () => {
  const cases: [string, string, string, RegExp][] = [
    ['{"code":999,"msg":"boom","details":"more"}', "", "failed", /CNI plugin true: boom: more/],
    ['{"code":999,"msg":"no IP addresses available in range set"}', "", "exhausted", /no IP addresses/],
    ["", "panic", "failed", /panic/],
    ["", "", "failed", /exit code 1/],
  ];
  for (const [stdout, stderr, code, message] of cases) {
    const cni = new CniDriver({ cniPath: ["/bin"], run: () => Promise.resolve({ code: 1, stdout, stderr }) });
    const call = {
      network: "n",
      plugin: { type: "true" },
      containerId: "c",
      netnsPath: "/n",
      ifName: "eth0",
    };
    await assert.rejects(cni.call({ ...call, verb: "ADD" }), (error: unknown) => {
      assert.ok(error instanceof RuntimeError);
      assert.equal(error.code, code);
      assert.match(error.message, message);
      return true;
    });
  }
});

Deno.test("commands end with their time, their signal, or too much output", async () => {
  const rejects = (work: Promise<unknown>, code: string) =>
    assert.rejects(work, (error: unknown) => error instanceof RuntimeError && error.code === code);
  await rejects(runCommand({ program: "sleep", args: ["60"], timeoutMs: 20 }), "timeout");
  const abort = new AbortController();
  const work = runCommand({ program: "sleep", args: ["60"], timeoutMs: 60_000, signal: abort.signal });
  abort.abort();
  await rejects(work, "canceled");
  await rejects(runCommand({ program: "/nonexistent", args: [], timeoutMs: 1000 }), "precondition");
  const { code, stdout } = await runCommand({ program: "yes", args: [], timeoutMs: 60_000 });
  assert.notEqual(code, 0);
  assert.ok(stdout.length <= MAX_COMMAND_OUTPUT_BYTES);
  const short = await runCommand({ program: "yes", args: [], timeoutMs: 60_000, maxOutputBytes: 10 });
  assert.notEqual(short.code, 0);
  assert.ok(short.stdout.length <= 10);
});

Deno.test("locks keep order per key and bound how many run at once", async () => {
  const locks = new KeyedLocks({ maxConcurrent: 2 });
  const order: string[] = [];
  let running = 0;
  const work = (name: string) => async () => {
    assert.ok(++running <= 2);
    await Promise.resolve();
    order.push(name);
    running--;
  };
  await Promise.all(["a1", "a2", "b1", "c1", "a3"].map((name) => locks.run(name[0], work(name))));
  assert.deepEqual(order.filter((name) => name.startsWith("a")), ["a1", "a2", "a3"]);
  assert.equal(locks.isBusy("a"), false);
  await assert.rejects(locks.run("a", () => Promise.reject(new Error("x"))));
  assert.equal(await locks.run("a", () => Promise.resolve(1)), 1);
});
