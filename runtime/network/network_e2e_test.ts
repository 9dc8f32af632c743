import assert from "node:assert/strict";
import { TestHost } from "../../tests/support/host.ts";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";
import {
  assertCutOff,
  assertReaches,
  eventually,
  METADATA,
  OUTSIDE,
  serve,
  Site,
  SUBNET,
} from "./testing.ts";

const NOTHING = { veths: 0, netns: 0, leases: [], records: [], rules: [], elements: 0 };

async function rejectsWith(work: Promise<unknown>, code: RuntimeErrorCode, message: RegExp): Promise<void> {
  await assert.rejects(work, (error: unknown) => {
    assert.ok(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });
}

Deno.test("a guest reaches the outside, and neither the host, nor other guests, nor the metadata address", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  assert.equal(await networks.ensureHost(), true);
  assert.equal(await networks.ensureHost(), false);
  const a = await networks.attach(site.id("a"));
  const b = await networks.attach(site.id("b"));
  assert.equal(a.gateway, "192.168.127.1");
  assert.notEqual(a.address, b.address);
  await using _host = await serve(site.host.netnsPath);
  await using _outside = await serve(site.outside.netnsPath);
  await using _guest = await serve(b.netnsPath);

  await assertReaches(site.host.netnsPath, { host: b.address, what: "host to guest" });
  await assertReaches(a.netnsPath, { host: OUTSIDE, what: "guest to outside" });
  await assertCutOff(a.netnsPath, { host: a.gateway, what: "guest to gateway" });
  await assertCutOff(a.netnsPath, { host: "10.91.0.1", what: "guest to the host's uplink address" });
  await assertCutOff(a.netnsPath, { host: b.address, what: "guest to guest" });
  await assertReaches(site.host.netnsPath, { host: METADATA, what: "the metadata address answers the host" });
  await assertCutOff(a.netnsPath, { host: METADATA, what: "guest to metadata" });
  const { stdout } = await site.host.run(
    "nsenter",
    `--net=${a.netnsPath}`,
    "curl",
    "-s",
    `http://${OUTSIDE}:8080/`,
  );
  assert.match(stdout, /10\.91\.0\.1$/, "masqueraded");
  await networks.check(site.id("a"));
});

Deno.test("a guest reaches no address of the host by IPv6, and sends nothing under another's address", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const a = await networks.attach(site.id("a"));
  await using _host = await serve(site.host.netnsPath);
  const veth = (await site.host.run("ip", "route", "get", a.address)).stdout.match(/dev (\S+)/)
    ?.[1] as string;
  // Second line of defence, out of the way: only the table is under test.
  await site.host.run(
    "sysctl",
    "-qw",
    `net/ipv6/conf/${veth}/disable_ipv6=0`,
    `net/ipv4/conf/${veth}/rp_filter=0`,
  );
  await site.host.run("ip", "address", "add", "fe80::77/64", "dev", veth, "nodad");
  await site.host.run("ip", "-n", `hc-${site.id("a")}`, "address", "add", "10.99.0.9/32", "dev", "eth0");
  await site.host.run(
    "ip",
    "-n",
    `hc-${site.id("a")}`,
    "address",
    "add",
    "fe80::88/64",
    "dev",
    "eth0",
    "nodad",
  );
  await site.outside.run(
    "nft",
    "add table ip probe; add chain ip probe in { type filter hook prerouting priority 0; }; " +
      "add rule ip probe in ip saddr 10.99.0.9 counter",
  );
  const spoof = async (): Promise<boolean> => {
    const curl = ["curl", "-s", "--interface", "10.99.0.9", "-m", "0.5", `http://${OUTSIDE}:8080/`];
    await site.host.runCommand({
      program: "nsenter",
      args: [`--net=${a.netnsPath}`, ...curl],
      timeoutMs: 10_000,
    });
    const { stdout } = await site.outside.run("nft", "list", "table", "ip", "probe");
    return !/packets 0 /.test(stdout);
  };
  await assertCutOff(a.netnsPath, { host: "[fe80::77%25eth0]", what: "link-local" });
  assert.equal(await spoof(), false, "spoofed source");
  await site.host.run("nft", "flush", "ruleset");
  // Else the neighbour that did not answer is asked again after a second only.
  await site.host.run("ip", "-n", `hc-${site.id("a")}`, "neighbour", "flush", "dev", "eth0", "nud", "all");
  await assertReaches(a.netnsPath, { host: "[fe80::77%25eth0]", what: "link-local without the table" });
  await eventually("spoofed source without the table", spoof);
});

Deno.test("other software's veths are not judged", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  await networks.attach(site.id("a"));
  await using other = await TestHost.create();
  await other.connect(site.host, { address: "10.92.0.2", peerAddress: "10.92.0.1" });
  await using _host = await serve(site.host.netnsPath);
  await assertReaches(other.netnsPath, { host: "10.92.0.1" });
});

Deno.test("the outside cannot open connections to a guest by routing through the host", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const a = await networks.attach(site.id("a"));
  await using _guest = await serve(a.netnsPath);
  await site.outside.run("ip", "route", "add", SUBNET, "via", "10.91.0.1");
  await assertReaches(site.host.netnsPath, { host: a.address });
  await assertCutOff(site.outside.netnsPath, { host: a.address });
});

Deno.test("detach leaves nothing behind, twice, and works after the netns is gone", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const id = site.id("a");
  await networks.attach(id);
  assert.equal((await site.traces()).veths, 1);
  await networks.detach(id);
  await networks.detach(id);
  assert.deepEqual(await site.traces(), NOTHING);
  await networks.attach(id);
  await site.host.run("ip", "netns", "delete", `hc-${id}`);
  // The kernel takes the veth that led there away in its own time.
  await eventually("the veth is gone", async () => (await site.traces()).veths === 0);
  await networks.detach(id);
  assert.deepEqual(await site.traces(), NOTHING);
});

Deno.test("attach is idempotent and survives a restart of the agent", async () => {
  await using site = await Site.create();
  const before = site.networks();
  await before.ensureHost();
  const first = await before.attach(site.id("a"));
  const after = site.networks();
  assert.equal(await after.ensureHost(), true);
  assert.deepEqual(await after.attach(site.id("a")), first);
  assert.deepEqual(await after.get(site.id("a")), first);
  await after.check(site.id("a"));
});

Deno.test("flushed rules are noticed and put back with the guests in them", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const a = await networks.attach(site.id("a"));
  await using _host = await serve(site.host.netnsPath);
  await site.host.run("nft", "flush", "ruleset");
  await assertReaches(a.netnsPath, { host: a.gateway, what: "open without the table" });
  await assert.rejects(networks.check(site.id("a")));
  assert.equal(await networks.ensureHost(), true);
  await assertCutOff(a.netnsPath, { host: a.gateway });
  await site.host.run("nft", "flush", "ruleset");
  await networks.attach(site.id("b"));
  await assertCutOff(a.netnsPath, { host: a.gateway, what: "put back by the next attach" });
});

Deno.test("twenty guests attached at once all get an address of their own and leave no trace", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const ids = Array.from({ length: 20 }, (_, index) => site.id(`n${index}`));
  const guests = await Promise.all(ids.map((id) => networks.attach(id)));
  assert.equal(new Set(guests.map((guest) => guest.address)).size, 20);
  assert.equal(await networks.ensureHost(), false);
  await Promise.all(ids.map((id) => networks.detach(id)));
  assert.deepEqual(await site.traces(), NOTHING);
});

Deno.test("a full subnet is told as exhausted and leaves nothing of the guest", async () => {
  await using site = await Site.create();
  const networks = site.networks({ subnet: "192.168.127.0/28" });
  await networks.ensureHost();
  for (let index = 0; index < 13; index++) await networks.attach(site.id(`n${index}`));
  await rejectsWith(networks.attach(site.id("over")), "exhausted", /over-.*no IP addresses available/);
  const traces = await site.traces();
  assert.equal(traces.veths, 13);
  assert.equal((traces.records as string[]).length, 13);
});

Deno.test("a missing plugin is named with where it was looked for, before anything is made", async () => {
  await using site = await Site.create();
  const networks = site.networks({ cniPath: ["/nonexistent/a", "/nonexistent/b"] });
  await networks.ensureHost();
  await rejectsWith(
    networks.attach(site.id("a")),
    "precondition",
    /CNI plugin "loopback": it is not in \/nonexistent\/a, \/nonexistent\/b/,
  );
  await rejectsWith(site.networks().attach(site.id("a"), { tap: true }), "precondition", /"tc-redirect-tap"/);
  assert.deepEqual(await site.traces(), NOTHING);
});

Deno.test("an attach that dies at any step is cleaned up by the next agent's garbage collection", async () => {
  await using site = await Site.create();
  await site.networks().ensureHost();
  const live = await site.networks().attach(site.id("live"));
  const baseline = await site.traces();
  let step = 0;
  for (let isDone = false; !isDone; step++) {
    let count = 0;
    // From the chosen call on nothing runs any more, as if the agent were dead; before or after its work.
    for (const when of ["before", "after"]) {
      count = 0;
      const networks = site.networks({
        run: async (request) => {
          const mine = count++;
          if (mine > step || (mine === step && when === "before")) throw new Error("the agent is dead");
          const result = await site.host.runCommand(request);
          if (mine === step) throw new Error("the agent is dead");
          return result;
        },
      });
      const id = site.id(`s${step}${when}`);
      const outcome = await networks.attach(id).then(() => "attached", () => "failed");
      const next = site.networks();
      await next.ensureHost();
      await next.collectGarbage(() => Promise.resolve(new Set([site.id("live")])));
      assert.deepEqual(await site.traces(), baseline, `step ${step}, ${when}`);
      if (outcome === "attached") isDone = true;
    }
  }
  assert.ok(step > 4, `${step} steps`);
  assert.equal((await site.networks().attach(site.id("live"))).address, live.address);
});

Deno.test("garbage collection leaves alone who is live or being attached, and finds orphaned leases", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const kept = site.id("kept");
  await networks.attach(kept);
  const lost = site.id("lost");
  await networks.attach(lost);
  await Deno.remove(`${site.dir}/network/guests/${lost}.json`);
  const attaching = networks.attach(site.id("new"));
  const garbage = await networks.collectGarbage(() => Promise.resolve(new Set([kept, site.id("new")])));
  await attaching;
  assert.equal(garbage.addresses, 1);
  const traces = await site.traces();
  assert.equal((traces.leases as string[]).length, 2);
  assert.equal((traces.rules as string[]).length, 4);
  assert.equal(traces.netns, 2);
});

Deno.test("garbage collection removes a record that has no name of its own yet", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  const records = `${site.dir}/network/guests`;
  await Deno.writeTextFile(`${records}/${site.id("cut")}.json.tmp`, "{");
  await networks.collectGarbage(() => Promise.resolve(new Set()));
  assert.deepEqual([...Deno.readDirSync(records)], []);
});

Deno.test("a half-made netns is replaced", async () => {
  await using site = await Site.create();
  const networks = site.networks();
  await networks.ensureHost();
  await Deno.writeTextFile(`/run/netns/hc-${site.id("a")}`, "");
  const guest = await networks.attach(site.id("a"));
  assert.ok(guest.address);
  await networks.detach(site.id("a"));
  assert.deepEqual(await site.traces(), NOTHING);
});

Deno.test("ids that are no plain names are refused", async () => {
  await using site = await Site.create();
  for (const id of ["../../etc/shadow", "", "a/b", "-x", "a b"]) {
    assert.throws(() => site.networks().attach(id), /Cannot use network id/);
  }
});
