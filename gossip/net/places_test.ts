import assert from "node:assert/strict";
import { networkOf } from "./network_of.ts";
import { Places } from "./places.ts";
import {
  MAX_SERVED_STREAMS,
  MAX_SERVED_STREAMS_PER_ADDRESS,
  MAX_SERVED_STREAMS_PER_NETWORK,
} from "./stream_driver.ts";

const STREAMS = {
  all: MAX_SERVED_STREAMS,
  perAddress: MAX_SERVED_STREAMS_PER_ADDRESS,
  perNetwork: MAX_SERVED_STREAMS_PER_NETWORK,
};

/** How many of `count` connections from the addresses in turn get a place. */
function admitted(places: Places, addresses: string[], count: number): number {
  let admitted = 0;
  for (let n = 0; n < count; n++) if (places.admit(addresses[n % addresses.length])) admitted++;
  return admitted;
}

const hosts = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, n) => `${prefix}${(n + 1).toString(16)}`);

Deno.test("an address is counted as itself and by its IPv6 /64, an IPv4 address as itself however it is written", () => {
  const counted = (text: string) => Object.values(networkOf(text)).join(" of ");
  assert.deepEqual(
    [
      "10.0.0.1",
      "::ffff:10.0.0.1",
      "::ffff:a00:1",
      "2001:DB8:0:1::5",
      "2001:db8:0:1:9:8:7:6",
      "2001:db8::2:0:0:1",
    ].map(counted),
    [
      "10.0.0.1 of 10.0.0.1",
      "10.0.0.1 of 10.0.0.1",
      "10.0.0.1 of 10.0.0.1",
      "2001:db8:0:1::5 of 2001:db8:0:1::/64",
      "2001:db8:0:1:9:8:7:6 of 2001:db8:0:1::/64",
      "2001:db8::2:0:0:1 of 2001:db8::/64",
    ],
  );
  assert.deepEqual(["fe80::1%eth0", "fe80::1%3", "::1", ""].map(counted), [
    "fe80::1 of fe80::/64",
    "fe80::1 of fe80::/64",
    "::1 of ::/64",
    " of ",
  ]);
});

Deno.test("rule 8: a stranger with all addresses of a /64 leaves others as many places as a single address has", () => {
  const places = new Places(STREAMS);
  assert.equal(admitted(places, hosts("2001:db8:bad:1::", 1_000), 1_000), MAX_SERVED_STREAMS_PER_NETWORK);
  const left = MAX_SERVED_STREAMS - MAX_SERVED_STREAMS_PER_NETWORK;
  assert.ok(left > MAX_SERVED_STREAMS_PER_ADDRESS);
  assert.equal(admitted(places, hosts("2001:db8:1:1::", 60), 60), 60);
  assert.equal(admitted(places, ["10.0.0.1"], 60), left - 60);
});

Deno.test("sixty nodes of one LAN, in one /64, all come twice at once, link-local or not", () => {
  for (const prefix of ["2001:db8:1:1::", "fe80::", "fd00::1:"]) {
    assert.equal(admitted(new Places(STREAMS), hosts(prefix, 60), 120), 120, prefix);
  }
});

Deno.test("a place that is given back, once or more often, is there again, for the address and for the network", () => {
  const places = new Places({ all: 9, perAddress: 1, perNetwork: 2 });
  const [one, two, three] = hosts("2001:db8::", 3);
  const first = places.admit(one)!;
  assert.ok(places.admit(two));
  assert.deepEqual([places.admit(one), places.admit(three), places.size], [undefined, undefined, 2]);
  for (let n = 0; n < 3; n++) first[Symbol.dispose]();
  assert.ok(places.admit(three));
  assert.deepEqual([places.admit(one), places.size], [undefined, 2]);
});

Deno.test("IPv4 addresses are bounded each by itself, whatever a network may have", () => {
  const places = new Places({ all: 9, perAddress: 3, perNetwork: 1 });
  assert.equal(admitted(places, ["10.0.0.1"], 2), 2);
  assert.equal(admitted(places, ["::ffff:10.0.0.1"], 2), 1);
});
