import assert from "node:assert/strict";
import { networkOf as ofHops } from "../agent/proxy/network_of.ts";
import { networkOf as ofGossip } from "../gossip/net/network_of.ts";

const SAMES = [
  ["10.0.0.1", "::ffff:10.0.0.1"],
  ["2001:db8:0:1::5", "2001:db8:0:1:9:8:7:6", "2001:db8:0:1::"],
  ["2001:db8:0:1:0:5:6:7", "2001:db8:0:1:0:5:6:7%eth0"],
  ["fe80::1", "fe80::2%eth0", "fe80::a:b:c:d%3"],
  ["::1", "::2"],
  ["2001:db8::1", "2001:db8::1:0:0:1"],
  ["1::", "1::2"],
  ["10.0.0.2"],
  ["2001:db8:0:2::5"],
];

Deno.test("the gossip port and the hop port count connections by the same networks", () => {
  for (const networkOf of [(text: string) => ofGossip(text).network, ofHops]) {
    const networks = SAMES.map((addresses) => new Set(addresses.map(networkOf)));
    assert.deepEqual(
      networks.map(({ size }) => size),
      SAMES.map(() => 1),
      `${networks.map((each) => [...each])}`,
    );
  }
  const apart = SAMES.filter((_, n) => n !== 2);
  for (const networkOf of [(text: string) => ofGossip(text).network, ofHops]) {
    assert.equal(new Set(apart.map(([address]) => networkOf(address))).size, apart.length);
  }
  const addresses = SAMES.flat();
  const sharing = (networkOf: (text: string) => string) =>
    addresses.map((address) => addresses.findIndex((other) => networkOf(other) === networkOf(address)));
  assert.deepEqual(sharing(ofHops), sharing((text) => ofGossip(text).network));
});
