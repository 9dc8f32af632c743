import assert from "node:assert/strict";
import { guestChains, parseChains, withoutChains } from "./guest_rules.ts";
import { formatCidr, formatPorts, intersectCidr, intersectPorts, mergePorts, parseCidr } from "./rules.ts";

Deno.test("networks are read, written and cut with each other", () => {
  const read = (text: string) => {
    const cidr = parseCidr(text);
    assert.ok(!("reason" in cidr), text);
    return cidr;
  };
  for (const text of ["0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32", "128.0.0.0/1"]) {
    assert.equal(formatCidr(read(text)), text);
  }
  const cut = (a: string, b: string) => {
    const both = intersectCidr(read(a), read(b));
    return both && formatCidr(both);
  };
  assert.equal(cut("0.0.0.0/0", "10.1.0.0/16"), "10.1.0.0/16");
  assert.equal(cut("10.1.0.0/16", "10.0.0.0/8"), "10.1.0.0/16");
  assert.equal(cut("10.1.0.0/16", "10.2.0.0/16"), undefined);
  assert.equal(cut("200.0.0.0/8", "200.1.2.3"), "200.1.2.3/32");
});

Deno.test("what is no network is refused with the reason", () => {
  const rows: [string, RegExp][] = [
    ["10.0.0.1/8", /did you mean 10\.0\.0\.0\/8\?/],
    ["10.0.0.256", /over 255/],
    ["10.0.0.0/33", /over \/32/],
    ["::/0", /not an IPv4 network/],
    ["1.2.3", /not an IPv4 network/],
  ];
  for (const [text, reason] of rows) {
    const cidr = parseCidr(text);
    assert.match("reason" in cidr ? cidr.reason : "", reason);
  }
});

Deno.test("port ranges merge and cut", () => {
  assert.deepEqual(mergePorts([{ from: 5, to: 9 }, { from: 1, to: 2 }, { from: 3, to: 6 }]), [{
    from: 1,
    to: 9,
  }]);
  assert.deepEqual(intersectPorts([{ from: 1, to: 100 }], [{ from: 50, to: 60 }, { from: 100, to: 200 }]), [
    { from: 50, to: 60 },
    { from: 100, to: 100 },
  ]);
  assert.equal(formatPorts([{ from: 1, to: 2 }, { from: 9, to: 9 }]), "1-2, 9");
});

Deno.test("a guest's chains end with a drop, and are found in a listing again", () => {
  const chains = guestChains("10.1.0.2", {
    egress: [
      { cidr: "0.0.0.0/0", protocol: "udp", ports: [{ from: 53, to: 53 }] },
      { cidr: "10.0.0.0/8", protocol: "icmp" },
      { cidr: "10.9.0.0/16", protocol: "any" },
    ],
    ingressPorts: [{ from: 80, to: 81 }],
  });
  assert.deepEqual(chains.map(({ rules }) => rules), [
    [
      "udp dport { 53 } accept",
      "ip daddr 10.0.0.0/8 meta l4proto icmp accept",
      "ip daddr 10.9.0.0/16 accept",
      "counter drop",
    ],
    ["meta l4proto { tcp, udp } th dport { 80-81 } accept", "counter drop"],
  ]);
  assert.deepEqual(guestChains("10.1.0.2", undefined), []);
  assert.deepEqual(guestChains("10.1.0.2", {}), []);
  const own = "\tchain egress_10_1_0_2 {\n\t\tudp dport 53 accept\n\t\tcounter drop\n\t}\n\n";
  const shared = "\tchain from_guests {\n\t\tip saddr vmap @egress\n\t}\n";
  const listing =
    `table inet h {\n\tmap egress {\n\t\telements = { 10.1.0.2 : goto egress_10_1_0_2 }\n\t}\n\n${own}${shared}}\n`;
  const { chains: found, jumps } = parseChains(listing);
  assert.deepEqual([...found], [["egress_10_1_0_2", "\t\tudp dport 53 accept\n\t\tcounter drop\n"]]);
  assert.deepEqual([...jumps], ["10.1.0.2 egress_10_1_0_2"]);
  assert.equal(withoutChains(listing), listing.replace(own, "").replaceAll("\n\n", "\n"));
});
