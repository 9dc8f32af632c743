import assert from "node:assert/strict";
import type { GuestNetwork } from "./network.ts";
import type { NetworkRules } from "./rules.ts";
import { assertCutOff, assertReaches, OUTSIDE, serve, Site } from "./testing.ts";

/** Site with an outside machine that serves on 8080 and 9090. */
async function openSite() {
  await using stack = new AsyncDisposableStack();
  const site = stack.use(await Site.create());
  stack.use(await serve(site.outside.netnsPath, 8080));
  stack.use(await serve(site.outside.netnsPath, 9090));
  const networks = site.networks();
  await networks.ensureHost();
  const owned = stack.move();
  return { site, networks, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Asserts which of the outside machine's two ports a guest reaches. */
async function reaches(guest: GuestNetwork, ports: readonly number[], what?: string): Promise<void> {
  await Promise.all([8080, 9090].map((port) => {
    const target = { host: OUTSIDE, port, what };
    const { netnsPath } = guest;
    return ports.includes(port) ? assertReaches(netnsPath, target) : assertCutOff(netnsPath, target);
  }));
}

const ONLY_8080: NetworkRules = {
  egress: [{ cidr: `${OUTSIDE}/32`, protocol: "tcp", ports: [{ from: 8000, to: 8080 }] }],
};

Deno.test("a guest reaches what its egress rules list and nothing else; others are not touched", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const free = await networks.attach(site.id("free"));
  const limited = await networks.attach(site.id("limited"), { rules: ONLY_8080 });
  const closed = await networks.attach(site.id("closed"), { rules: { egress: [] } });
  const elsewhere = await networks.attach(site.id("else"), {
    rules: { egress: [{ cidr: "10.92.0.0/16", protocol: "any" }, { cidr: "0.0.0.0/0", protocol: "udp" }] },
  });
  await reaches(free, [8080, 9090]);
  await reaches(limited, [8080]);
  await reaches(closed, []);
  await reaches(elsewhere, []);
  await networks.check(site.id("limited"));
  assert.equal(await networks.ensureHost(), false, "the table is as it should be");
});

Deno.test("a guest without egress answers those that reach it, on its allowed ports only", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const guest = await networks.attach(site.id("a"), {
    rules: { egress: [], ingressPorts: [{ from: 8080, to: 8081 }] },
  });
  await using _open = await serve(guest.netnsPath, 8080);
  await using _shut = await serve(guest.netnsPath, 9090);
  await assertReaches(site.host.netnsPath, { host: guest.address });
  await assertCutOff(site.host.netnsPath, { host: guest.address, port: 9090 });
  const shut = await networks.attach(site.id("b"), { rules: { ingressPorts: [] } });
  await using _none = await serve(shut.netnsPath, 8080);
  await assertCutOff(site.host.netnsPath, { host: shut.address });
  await reaches(shut, [8080, 9090]);
});

Deno.test("the rules of a guest go with it, and one that gets its address later is free", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const chains = async () => (await site.host.run("nft", "list", "ruleset")).stdout.match(/gress_\d+/g) ?? [];
  const limited = await networks.attach(site.id("a"), { rules: { ...ONLY_8080, ingressPorts: [] } });
  assert.notDeepEqual(await chains(), []);
  await networks.detach(site.id("a"));
  assert.deepEqual(await chains(), []);
  // host-local hands addresses out in a circle: make it begin at the same one.
  await Deno.remove(`${site.dir}/network/ipam/hypercore/last_reserved_ip.0`);
  const next = await networks.attach(site.id("b"));
  assert.equal(next.address, limited.address);
  await reaches(next, [8080, 9090]);
});

Deno.test("rules are in force again after a restart of the agent and after a flush of the host's rules", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const id = site.id("a");
  const guest = await networks.attach(id, { rules: ONLY_8080 });
  const restarted = site.networks();
  assert.equal(await restarted.ensureHost(), true);
  await reaches(guest, [8080]);
  assert.equal(await restarted.ensureHost(), false);
  await site.host.run("nft", "flush", "ruleset");
  await reaches(guest, [], "without the table there is no masquerading either");
  assert.equal(await restarted.ensureHost(), true);
  await reaches(guest, [8080]);
  await site.host.run("nft", "flush", "ruleset");
  await restarted.attach(site.id("b"));
  await reaches(guest, [8080], "put back by the next attach");
});

Deno.test("a rule that somebody added to or took from a guest's chain is noticed and put right", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const guest = await networks.attach(site.id("a"), { rules: ONLY_8080 });
  const chain = ["inet", "hypercore_192_168_127_0_24", `egress_${guest.address.replaceAll(".", "_")}`];
  await site.host.run("nft", "insert", "rule", ...chain, "accept");
  await reaches(guest, [8080, 9090]);
  await assert.rejects(networks.check(site.id("a")), /isolation rules are not in place/);
  assert.equal(await networks.ensureHost(), true);
  await reaches(guest, [8080]);
  await site.host.run("nft", "flush", "map", chain[0], chain[1], "egress");
  assert.equal(await networks.ensureHost(), true);
  await reaches(guest, [8080]);
});

Deno.test("a guest's rules can be changed while it runs, by attaching again too", async () => {
  await using opened = await openSite();
  const { site, networks } = opened;
  const id = site.id("a");
  const guest = await networks.attach(id);
  await networks.setRules(id, ONLY_8080);
  await reaches(guest, [8080]);
  assert.equal(await networks.ensureHost(), false);
  await networks.setRules(id, { egress: [] });
  await reaches(guest, []);
  assert.deepEqual(await networks.attach(id, { rules: ONLY_8080 }), guest);
  await reaches(guest, [8080]);
  await networks.setRules(id, undefined);
  await reaches(guest, [8080, 9090]);
  assert.equal(await networks.ensureHost(), false);
  await assert.rejects(networks.setRules(site.id("none"), undefined), /has no network/);
});
