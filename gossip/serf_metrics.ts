import type { Counters } from "./memberlist/context.ts";
import type { MetricsRegistry } from "./metrics.ts";
import type { Transport } from "./net/transport.ts";
import type { SerfCounters } from "./serf/counters.ts";
import type { SerfCore } from "./serf/serf.ts";

const COUNTERS: Record<keyof Counters, [name: string, help: string]> = {
  packetsReceived: ["packets_received_total", "Packets received"],
  packetsSent: ["packets_sent_total", "Packets sent"],
  packetsBad: ["packets_bad_total", "Packets dropped because they could not be read"],
  bytesReceived: ["bytes_received_total", "Bytes received in packets"],
  bytesSent: ["bytes_sent_total", "Bytes sent in packets"],
  messagesReceived: ["messages_received_total", "Messages received in packets"],
  streamsDialed: ["streams_dialed_total", "Streams opened"],
  streamsServed: ["streams_served_total", "Streams answered"],
  streamsFailed: ["streams_failed_total", "Streams that failed"],
  streamsRefused: [
    "streams_refused_total",
    "Streams closed because too many were served, at all or of their address, or held too much together",
  ],
  probes: ["probes_total", "Nodes probed"],
  probesFailed: ["probes_failed_total", "Probes without an answer"],
  suspicions: ["suspicions_total", "Nodes suspected"],
  refutations: ["refutations_total", "Times this node contradicted a word about itself"],
  deaths: ["deaths_total", "Nodes declared dead"],
  conflicts: ["name_conflicts_total", "Names claimed by two running nodes"],
  mergesRefused: ["merges_refused_total", "Push/pulls refused because of protocol versions"],
  broadcastsDropped: ["broadcasts_dropped_total", "News about members dropped because too much was queued"],
  pushPulls: ["push_pulls_total", "Whole states exchanged"],
  acks: ["acks_received_total", "Acks received"],
  nacks: ["nacks_received_total", "Nacks received: helpers that reached nobody"],
  implausible: ["incarnations_refused_total", "Incarnations too high to be believed"],
  limited: [
    "requests_over_limit_total",
    "Nodes, pings for others, checks of names and streams left alone because there were too many",
  ],
  eagerRounds: ["eager_rounds_total", "Times that news was sent at once"],
};

const SERF_COUNTERS: Record<keyof SerfCounters, [name: string, help: string]> = {
  userEvents: ["user_events_total", "User events delivered, this node's own included"],
  queries: ["queries_total", "Queries handled, this node's own included"],
  queryAnswers: ["query_answers_total", "Acks and answers to queries received"],
  relays: ["relays_total", "Answers carried for others"],
  limited: [
    "messages_over_limit_total",
    "Events and queries left alone because there were too many at a time",
  ],
};

/** Registers the figures of one member under `hypercore_gossip_`. */
export function registerMetrics(registry: MetricsRegistry, core: SerfCore, transport: Transport): void {
  const { memberlist } = core;
  for (const [key, [name, help]] of Object.entries(COUNTERS)) {
    registry.counter(`hypercore_gossip_${name}`, help, () => memberlist.counters[key as keyof Counters]);
  }
  registry.counter(
    "hypercore_gossip_packets_lost_total",
    "Packets that this machine could not send or take",
    () => transport.dropped,
  );
  registry.counter(
    "hypercore_gossip_times_refused_total",
    "Lamport times too far ahead to be believed",
    () => core.timesRefused,
  );
  for (const [key, [name, help]] of Object.entries(SERF_COUNTERS)) {
    registry.counter(`hypercore_gossip_${name}`, help, () => core.counters[key as keyof SerfCounters]);
  }
  registry.counter(
    "hypercore_gossip_rings_sealed_total",
    "Key rings sealed for members that missed a rotation",
    () => core.keys.sealed,
  );
  registry.counter(
    "hypercore_gossip_rings_taken_total",
    "Key rings taken over from others",
    () => core.keys.taken,
  );
  const gauge = (name: string, help: string, read: () => number) =>
    registry.gauge(`hypercore_gossip_${name}`, help, read);
  gauge("health_score", "Lifeguard's local health; 0 is healthy", () => memberlist.healthScore);
  gauge("members_alive", "Members that neither failed nor left", () => core.members.aliveCount);
  gauge("members_failed", "Members that failed", () => core.members.failed.size);
  gauge("members_left", "Members that left", () => core.members.left.size);
  registry.counter(
    "hypercore_gossip_messages_dropped_total",
    "Intents, queries and user events dropped because too many were queued",
    () => core.sizes.dropped,
  );
  for (const key of Object.keys(core.sizes) as (keyof SerfCore["sizes"])[]) {
    if (key === "dropped") continue;
    const name = key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    gauge(`size_${name}`, `Entries: ${name.replaceAll("_", " ")}`, () => core.sizes[key]);
  }
}
