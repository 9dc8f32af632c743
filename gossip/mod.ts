/**
 * A complete member of a Serf cluster: membership, failure detection, events, queries, key rotation and network
 * coordinates, on the wire and in behaviour like hashicorp's agents and library, which it joins.
 *
 * ```ts
 * import { createSerf } from "./mod.ts";
 * import assert from "node:assert/strict";
 *
 * // Two members on loopback, any free port each.
 * await using alice = await createSerf({ name: "alice", bind: { host: "127.0.0.1", port: 0 } });
 * await using bob = await createSerf({ name: "bob", bind: { host: "127.0.0.1", port: 0 }, tags: { role: "web" } });
 *
 * bob.listen((event) => {
 *   if (event.kind === "query" && event.name === "uptime") bob.respond(event, "5 days");
 * });
 * await bob.join([`127.0.0.1:${alice.local.port}`]);
 *
 * const { responses } = await alice.query("uptime", {
 *   filters: [{ kind: "tag", tag: "role", expr: "^web$" }],
 *   timeoutMs: 500,
 * });
 * const answers = responses.map(({ from, payload }) => `${from}: ${new TextDecoder().decode(payload)}`);
 * assert.deepEqual(answers, ["bob: 5 days"]);
 * ```
 *
 * The cores ({@linkcode SerfCore}, {@linkcode Memberlist}) are state machines without clock and sockets; `createSerf`
 * puts one together with real ones. See docs/gossip.md for joining, encryption, limits and metrics.
 *
 * @module
 */
export { createSerf } from "./create.ts";
export type { SerfOptions } from "./options.ts";
export {
  type AskOptions,
  type ProbeListener,
  type Query,
  type QueryResult,
  type QueueDepth,
  type Reachability,
  Serf,
  type SerfListener,
} from "./serf.ts";
export type { KeyResult } from "./key_result.ts";
export { type KeyHolder, rotateKey, type Rotation } from "./rotate.ts";
export type { JoinOptions, RetryOptions } from "./net/joiner.ts";
export { type Resolver, systemResolver } from "./net/resolve.ts";
export type { PayloadLimits } from "./serf/payload_limits.ts";
export type { MemberEvent, ProbeOutcome, QueryEvent, SerfEvent, UserEvent } from "./serf/events.ts";
export type { MemberInfo, MemberStatusName } from "./serf/member.ts";
export { SerfError } from "./serf/queries.ts";
export { DEFAULT_SERF_CONFIG, type SerfConfig } from "./serf/config.ts";
export {
  DEFAULT_EAGER,
  type EagerOptions,
  type MemberlistTiming,
  type Profile,
  PROFILES,
} from "./memberlist/config.ts";
export type { QueryFilter } from "./codec/filter.ts";
export type { MetricsRegistry } from "./metrics.ts";
export { type Log, silentLog } from "./log.ts";
export { distanceS } from "./serf/coordinates.ts";
export { SerfCore } from "./serf/serf.ts";
export { Memberlist } from "./memberlist/memberlist.ts";
export { nodeStream } from "./net/node_stream.ts";
export { Places } from "./net/places.ts";
export { SocketTransport, type SocketTransportOptions } from "./net/socket_transport.ts";
export type { ByteStream, Clock, Transport, TransportHandler } from "./net/transport.ts";
export { type Random, seededRandom, systemRandom } from "./random.ts";
export { Endpoint } from "./endpoint.ts";
