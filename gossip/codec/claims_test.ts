import assert from "node:assert/strict";
import { Claim, Claims } from "./claims.ts";
import { encodeAlive } from "./messages.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { decodePushPull, encodePushPull } from "./push_pull.ts";
import type { Alive } from "./types.ts";

const ALIVE: Alive = {
  node: "a",
  incarnation: 3,
  addr: new Uint8Array([10, 0, 0, 1]),
  port: 7946,
  meta: new Uint8Array([0xff, 0x80]),
  vsn: new Uint8Array([1, 5, 2, 2, 5, 4]),
};

function fields({ node, incarnation, addr, port, meta, vsn }: Alive): Alive {
  return { node, incarnation, addr, port, meta, vsn };
}

Deno.test("a claim that comes again is the same object, as a message, by its fields and in a push/pull", () => {
  const claims = new Claims();
  const bytes = encodeAlive(ALIVE);
  const claim = claims.fromAlive(bytes, 0, bytes.length);
  assert.deepEqual(fields(claim), ALIVE);
  const within = new Uint8Array([7, 7, ...bytes, 7]);
  assert.equal(claims.fromAlive(within, 2, 2 + bytes.length), claim);
  assert.equal(claims.of(ALIVE), claim);
  const state = encodePushPull({ join: false, nodes: [claim], userState: new Uint8Array(0) });
  const { nodes } = decodePushPull(new MsgpackReader().reset(state, 1), claims);
  assert.equal(nodes[0], claim);
});

Deno.test("a claim owns its bytes: the packet it came in may be written over", () => {
  const claims = new Claims();
  const bytes = encodeAlive(ALIVE).slice();
  const claim = claims.fromAlive(bytes, 0, bytes.length);
  bytes.fill(0);
  assert.deepEqual(fields(claim), ALIVE);
  assert.deepEqual(claim.encoded, encodeAlive(ALIVE));
});

Deno.test("what does not belong into a claim is not passed on with it", () => {
  const claims = new Claims();
  const junk = new MsgpackWriter().byte(4).map(7).string("Junk").bytes(new Uint8Array(900))
    .string("Addr").bytes(ALIVE.addr).string("Incarnation").int(3).string("Meta").bytes(ALIVE.meta)
    .string("Node").string("a").string("Port").int(7946).string("Vsn").bytes(ALIVE.vsn).finish();
  const claim = claims.fromAlive(junk, 0, junk.length);
  assert.deepEqual(claim.encoded, encodeAlive(ALIVE));
  assert.ok(claim.meta.buffer.byteLength <= 8_192, "nor kept");
});

Deno.test("a book of claims is bounded: one that was displaced is read again", () => {
  const claims = new Claims({ slots: 4 });
  const names = Array.from({ length: 100 }, (_, i) => `node-${i}`);
  for (const round of [1, 2]) {
    for (const node of names) {
      const bytes = encodeAlive({ ...ALIVE, node });
      const claim = claims.fromAlive(bytes, 0, bytes.length);
      assert.ok(claim instanceof Claim && claim.node === node, `round ${round}`);
    }
  }
});
