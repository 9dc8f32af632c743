import assert from "node:assert/strict";
import { Bench, local, START_MS, workload } from "../cluster/testing.ts";
import { Counters, sumStats } from "../proxy/counters.ts";
import { AgentMetrics, type ClusterFigures, proxyText } from "./metrics.ts";

Deno.test("what the cluster's core does is counted", async () => {
  const bench = new Bench();
  const a = bench.add("a", { respawn: true });
  const b = bench.add("b", { respawn: true });
  bench.feed("a", a.localChanged(START_MS, local([])));
  bench.feed("b", b.localChanged(START_MS, local([workload("aaaaaaaaaaaa")])));
  bench.advance(30_000);
  bench.cut.add("b");
  bench.setStatus("b", "failed");
  bench.advance(30_000);

  using metrics = new AgentMetrics({ version: "1", nodeName: "a" });
  const membership = { members: () => new Map(), serf: { queueDepth: { total: 3 } } };
  metrics.connectCluster({
    membership: membership as unknown as ClusterFigures["membership"],
    core: a,
    events: { readers: 2, cutOff: 5 },
    queries: { inWork: 0, dropped: 4 },
  });
  const { body } = await metrics.text();
  const value = (name: string) => Number(body.match(new RegExp(`^${name} (.*)$`, "m"))?.[1]);
  assert.equal(value("hypercore_serf_queue_depth"), 3);
  assert.equal(value("hypercore_event_readers"), 2);
  assert.equal(value("hypercore_event_readers_cut_off_total"), 5);
  assert.equal(value("hypercore_queries_dropped_total"), 4);
  assert.equal(value("hypercore_reschedules_total"), 1);
  assert.equal(value("hypercore_copies_ended_total"), 0);
  assert.ok(value("hypercore_broadcast_skipped_total") > 5);
});

Deno.test("what the proxy refused and cut, on all of its workers, is counted", () => {
  const one = Object.assign(new Counters(), {
    refused: 1,
    cut: 2,
    hopsSent: 3,
    hopsReceived: 4,
    hopsRefused: 5,
  });
  const body = proxyText(sumStats([one.snapshot(), one.snapshot()]));
  const value = (name: string) => Number(body.match(new RegExp(`^hypercore_proxy_${name} (.*)$`, "m"))?.[1]);
  assert.equal(value("refused_connections_total"), 2);
  assert.equal(value("cut_connections_total"), 4);
  assert.equal(value("hops_sent_total"), 6);
  assert.equal(value("hops_received_total"), 8);
  assert.equal(value("hops_refused_total"), 10);
});
