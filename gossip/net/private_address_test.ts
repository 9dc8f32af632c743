import assert from "node:assert/strict";
import { chooseAddress, defaultInterface } from "./private_address.ts";

const ROUTES = `Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
vetha1\t027FA8C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
eth1\t00000000\t0102000A\t0003\t0\t0\t200\t00000000\t0\t0\t0
eth0\t00000000\t010011AC\t0003\t0\t0\t100\t00000000\t0\t0\t0
`;

Deno.test("the default interface is the one with the lowest metric", () => {
  assert.equal(defaultInterface(ROUTES), "eth0");
  assert.equal(defaultInterface("Iface\tDestination\n"), undefined);
  assert.equal(defaultInterface(""), undefined);
});

Deno.test("a node advertises where its default route leads out, not a bridge of its containers", () => {
  const bridge = { name: "vetha1", address: "192.168.127.1" };
  const loopback = { name: "lo", address: "127.0.0.1" };
  const local = { name: "eth0", address: "fe80::1" };
  const choose = (addresses: string[], outward: string | undefined = "eth0") =>
    chooseAddress(
      [loopback, local, bridge, ...addresses.map((address) => ({ name: "eth0", address }))],
      outward,
    );
  assert.equal(choose(["203.0.113.7"]), "203.0.113.7");
  assert.equal(choose(["203.0.113.7", "10.0.0.4"]), "10.0.0.4");
  assert.equal(choose(["2001:db8::1"]), "192.168.127.1", "an IPv4 address is what most clusters speak");
  assert.equal(choose([], undefined), "192.168.127.1");
  assert.equal(chooseAddress([loopback, local], "eth0"), undefined);
  assert.equal(chooseAddress([{ name: "eth0", address: "2001:db8::1" }], "eth0"), "2001:db8::1");
});
