import assert from "node:assert/strict";
import { Registry } from "prom-client";
import { PeerMetrics } from "./metrics.ts";

Deno.test("what happens to connections between nodes is counted, failures by their reason", async () => {
  const registry = new Registry();
  const { observe } = new PeerMetrics(registry, { incoming: () => 3, outgoing: () => 2, pending: () => 1 });
  observe({ kind: "accepted", ms: 4 });
  observe({ kind: "dialled", ms: 4 });
  observe({ kind: "stream" });
  observe({ kind: "refused", reason: "proof" });
  observe({ kind: "refused", reason: "proof" });
  observe({ kind: "dial-failed", reason: "network" });
  const text = await registry.metrics();
  for (
    const line of [
      'hypercore_peer_handshake_duration_seconds_count{direction="in"} 1',
      'hypercore_peer_handshake_duration_seconds_bucket{le="0.005",direction="out"} 1',
      'hypercore_peer_handshake_failures_total{direction="in",reason="proof"} 2',
      'hypercore_peer_handshake_failures_total{direction="out",reason="network"} 1',
      "hypercore_peer_gossip_streams_total 1",
      'hypercore_peer_connections{direction="in"} 3',
      'hypercore_peer_connections{direction="out"} 2',
      "hypercore_peer_pending_connections 1",
    ]
  ) assert(text.includes(line), `${line}\n${text}`);
});
