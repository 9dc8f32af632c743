import assert from "node:assert/strict";
import { Openings } from "./openings.ts";

Deno.test("of too many that have not proved themselves the oldest of the address with the most gives way", () => {
  const openings = new Openings(4);
  const closed: string[] = [];
  const add = (address: string, name: string) => openings.add(address, () => closed.push(name));
  const member = add("10.0.0.1", "member");
  for (const name of ["s1", "s2", "s3", "s4", "s5"]) add("10.0.0.9", name);
  assert.deepEqual(closed, ["s1", "s2"]);
  assert.equal(openings.size, 4);
  member();
  assert.equal(openings.size, 3);
  add("10.0.0.2", "other");
  assert.deepEqual(closed, ["s1", "s2"]);
});

Deno.test("one that gave way or is done counts no more, however often it says so", () => {
  const openings = new Openings(1);
  let closed = 0;
  const first = openings.add("a", () => closed++);
  const second = openings.add("b", () => closed++);
  assert.equal(closed, 1);
  first();
  assert.equal(openings.size, 1);
  second();
  second();
  assert.equal(openings.size, 0);
});

/** Fills openings with connections of these addresses in turn; gives whose gave way. */
function flood(openings: Openings, addresses: string[], count: number): (name: string) => number {
  const closed: string[] = [];
  for (let n = 0; n < count; n++) {
    const address = addresses[n % addresses.length];
    openings.add(address, () => closed.push(address));
  }
  return (start) => closed.filter((address) => address.startsWith(start)).length;
}

const hosts = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => `${prefix}${(n + 1).toString(16)}`);

Deno.test("rule 8: a stranger with ever new addresses of one IPv6 /64 takes places of its own", () => {
  const openings = new Openings(100);
  const closed = [
    flood(openings, hosts("2001:db8:1:1::", 10), 10),
    flood(openings, ["10.0.0.1"], 10),
    flood(openings, hosts("2001:db8:bad:1::", 1_000), 1_000),
    flood(openings, hosts("2001:db8:2:2::", 10), 10),
  ];
  const ofStranger = closed.map((count) => count("2001:db8:bad:"));
  assert.deepEqual(closed.map((count) => count("")), ofStranger, "nobody else's gave way");
  assert.equal(ofStranger[2] + ofStranger[3] + openings.size, 1_030);
  assert.equal(openings.size, 100);
});

Deno.test("sixty nodes of one LAN, in one /64, do not give way to a stranger's single address, there or elsewhere", () => {
  const alone = new Openings(100);
  const members = flood(alone, hosts("2001:db8:1:1::", 60), 60);
  assert.equal(flood(alone, ["10.0.0.9"], 1_000)(""), 960);
  assert.equal(members(""), 0);
  const openings = new Openings(100);
  const lan = flood(openings, hosts("2001:db8:1:1::", 60), 60);
  const stranger = flood(openings, ["2001:db8:1:1::bad"], 1_000);
  const other = flood(openings, ["10.0.0.9"], 1_000);
  assert.deepEqual([lan("2001:db8:1:1::bad"), lan(""), stranger("10.")], [0, 0, 0]);
  assert.ok(stranger("") > 900 && other("") > 900);
});

Deno.test("openings that are done leave nothing behind of their address and network", () => {
  const openings = new Openings(3);
  const addresses = ["2001:db8::1", "2001:db8::2", "10.0.0.1"];
  for (let round = 0; round < 3; round++) {
    const done = addresses.map((address) => openings.add(address, () => assert.fail("none gives way")));
    assert.deepEqual([openings.size, openings.networks], [3, 2]);
    for (const each of done) each();
    assert.deepEqual([openings.size, openings.networks], [0, 0]);
  }
});
