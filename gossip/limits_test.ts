import assert from "node:assert/strict";
import { encodeAlive, encodeIndirectPing } from "./codec/messages.ts";
import { encodeJoin, encodeQuery, encodeUserEvent } from "./codec/serf_messages.ts";
import { concatBytes, NO_BYTES } from "./codec/text.ts";
import { Endpoint } from "./endpoint.ts";
import { MAX_NODES } from "./memberlist/membership.ts";
import { MAX_CHECKS, MAX_PENDING } from "./memberlist/prober.ts";
import { MAX_DIALS } from "./memberlist/streams.ts";
import { DEFAULT_SERF_CONFIG } from "./serf/config.ts";
import { MAX_INTENTS } from "./serf/members.ts";
import { MAX_OPEN_QUERIES } from "./serf/open_queries.ts";
import { MAX_UNANSWERED } from "./serf/queries.ts";
import { MAX_QUERIES_PER_TIME } from "./serf/query_log.ts";
import type { SerfCore } from "./serf/serf.ts";
import { MAX_EVENT_DIGESTS, MAX_EVENTS_PER_TIME } from "./serf/user_events.ts";
import { Bench } from "./testing.ts";

const FROM = new Endpoint(new Uint8Array([127, 0, 0, 9]), 9);
const VSN = new Uint8Array([1, 5, 2, 2, 5, 4]);
const USER = new Uint8Array([8]);

/** A core that knows nobody, and packets for it from nowhere; what it wants done is dropped. */
function one(): { core: SerfCore; bench: Bench; receive(packet: Uint8Array): void } {
  const bench = new Bench();
  const core = bench.add("a", 1000);
  return {
    core,
    bench,
    receive(packet) {
      assert.equal(core.memberlist.receivePacket(bench.nowMs, FROM, packet), undefined);
      core.memberlist.takeEffects();
      core.takeEvents();
    },
  };
}

function alive(node: string, i: number) {
  const addr = new Uint8Array([10, i >> 16, i >> 8, i]);
  return encodeAlive({ node, addr, port: 7946, meta: NO_BYTES, vsn: VSN, incarnation: 1 });
}

function query(fields: { ltime: number; id: number }) {
  return concatBytes([
    USER,
    encodeQuery({
      ...fields,
      addr: FROM.addr,
      port: FROM.port,
      sourceNode: "b",
      filters: [],
      flags: 0,
      relayFactor: 0,
      timeoutNs: 60e9,
      name: "ask",
      payload: undefined,
    }),
  ]);
}

Deno.test("rule 8: no more nodes are known than the limit; more are counted", () => {
  const { core: { memberlist }, receive } = one();
  for (let i = 1; i < MAX_NODES + 5; i++) receive(alive(`n${i}`, i));
  assert.equal(memberlist.sizes.nodes, MAX_NODES);
  assert.equal(memberlist.counters.limited, 5);
});

Deno.test("rule 8: no more pings are made for others at once than the limit; more are counted", () => {
  const { core: { memberlist }, receive } = one();
  for (let seqNo = 0; seqNo < MAX_PENDING + 5; seqNo++) {
    receive(encodeIndirectPing({
      seqNo,
      target: new Uint8Array([10, 0, 0, 1]),
      port: 7946,
      node: "x",
      nack: false,
      sourceAddr: FROM.addr,
      sourcePort: FROM.port,
      sourceNode: "b",
    }));
  }
  assert.equal(memberlist.sizes.pendingPings, MAX_PENDING);
  assert.equal(memberlist.counters.limited, 5);
});

Deno.test("rule 8: no more claims of names are checked at once than the limit; more are counted", () => {
  const { core: { memberlist }, receive } = one();
  for (let i = 1; i <= MAX_CHECKS + 5; i++) {
    receive(alive(`n${i}`, i));
    receive(alive(`n${i}`, 65_536 + i));
  }
  assert.equal(memberlist.counters.limited, 5);
});

Deno.test("rule 8: no more streams are dialled at once than the limit; more fail at once and are counted", () => {
  const { core, bench } = one();
  const errors: (string | undefined)[] = [];
  for (let i = 0; i < MAX_DIALS + 1; i++) {
    core.memberlist.pushPull(
      new Endpoint(new Uint8Array([10, 0, 0, 1]), 1 + i),
      { join: true },
      (error) => errors.push(error),
    );
  }
  assert.deepEqual(errors, [`${MAX_DIALS} streams are open already`]);
  assert.equal(core.memberlist.counters.limited, 1);
  bench.advance(0);
});

Deno.test("rule 8: no more queries await this node's answer, or share a time, than the limits; more are counted", () => {
  const { core, receive } = one();
  for (let n = 0; n < MAX_UNANSWERED + 5; n++) {
    receive(query({ ltime: 1 + Math.floor(n / MAX_QUERIES_PER_TIME), id: n }));
  }
  assert.equal(core.sizes.unansweredQueries, MAX_UNANSWERED);
  assert.equal(core.counters.limited, 5);
  const { core: other, receive: receiveToo } = one();
  for (let id = 0; id < MAX_QUERIES_PER_TIME + 5; id++) receiveToo(query({ ltime: 1, id }));
  assert.equal(other.sizes.unansweredQueries, MAX_QUERIES_PER_TIME);
  assert.equal(other.counters.limited, 5);
});

Deno.test("rule 8: no more events of one time are delivered than are remembered, whole or by digest; more are counted", () => {
  const { core, receive } = one();
  const remembered = MAX_EVENTS_PER_TIME + MAX_EVENT_DIGESTS;
  for (let n = 0; n < remembered + 5; n++) {
    const event = { ltime: 1, name: `e${n}`, payload: undefined, coalesce: false };
    receive(concatBytes([USER, encodeUserEvent(event)]));
  }
  assert.equal(core.counters.userEvents, remembered);
  assert.equal(core.counters.limited, 5);
});

Deno.test("rule 8: no more queries of this node are open than the limit; more are refused and counted", () => {
  const { core } = one();
  const ask = () => core.query(0, "ask", NO_BYTES, { timeoutMs: 60_000, handler: { onDone() {} } });
  for (let n = 0; n < MAX_OPEN_QUERIES; n++) {
    ask();
    core.memberlist.takeEffects();
    core.takeEvents();
  }
  assert.throws(ask, /Cannot send query "ask": too many queries are open/);
  assert.equal(core.sizes.openQueries, MAX_OPEN_QUERIES);
  assert.equal(core.counters.limited, 1);
});

Deno.test("rule 8: of intents about members that were never seen the newest are remembered, up to the limit", () => {
  const { core, receive } = one();
  for (let n = 0; n < MAX_INTENTS + 5; n++) {
    receive(concatBytes([USER, encodeJoin({ ltime: 1 + Math.floor(n / 100), node: `n${n}` })]));
  }
  assert.equal(core.sizes.intents, MAX_INTENTS);
});

Deno.test("rule 8: no more events wait to be gossiped than the limit; those sent most are dropped and counted", () => {
  const { core, receive } = one();
  const { maxQueueDepth } = DEFAULT_SERF_CONFIG;
  receive(alive("b", 1));
  for (let n = 0; n < maxQueueDepth + 5; n++) {
    core.userEvent(0, `e${n}`, NO_BYTES, { coalesce: false });
    core.memberlist.takeEffects();
    core.takeEvents();
  }
  assert.deepEqual([core.sizes.eventQueue, core.sizes.dropped], [maxQueueDepth, 5]);
});
