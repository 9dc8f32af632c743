import { encodeFilter, type QueryFilter } from "../codec/filter.ts";
import { encodeQuery, encodeQueryResponse, encodeUserEvent, MAX_TIME } from "../codec/serf_messages.ts";
import { USER_EVENT_CEILING_BYTES } from "./config.ts";
import type { SerfCore } from "./serf.ts";

/** A payload of this length has the longest head; a longer one none that is longer. */
const PROBE_BYTES = 256;

/** What events, queries and answers can carry. All in bytes; what exceeds them is refused where it is sent. */
export interface PayloadLimits {
  /** Largest encoded user event, query, and answer. */
  readonly userEvent: number;
  readonly query: number;
  readonly response: number;
  /** Largest encoded message that goes by packet; events above it go by stream, at most {@linkcode userEvent}. */
  readonly packet: number;
  /** Payload that is left for an event of this name. */
  eventPayload(name: string): number;
  /** Payload that is left for a query of this name. */
  queryPayload(name: string, options?: { filters?: readonly QueryFilter[] }): number;
  /** Payload that is left for an answer of this node. */
  responsePayload(): number;
}

/** Limits of a core as it is configured. */
export function payloadLimits(core: SerfCore): PayloadLimits {
  const { config, memberlist } = core;
  const { name: node } = memberlist.config;
  const userEvent = Math.min(config.userEventSizeLimit, USER_EVENT_CEILING_BYTES);
  const payload = new Uint8Array(PROBE_BYTES);
  const left = (limit: number, encoded: Uint8Array) => Math.max(0, limit - (encoded.length - PROBE_BYTES));
  return {
    userEvent,
    query: config.querySizeLimit,
    response: config.queryResponseSizeLimit,
    packet: core.packetMessageBytes,
    eventPayload: (name) =>
      left(userEvent, encodeUserEvent({ ltime: MAX_TIME, name, payload, coalesce: true })),
    queryPayload: (name, options = {}) =>
      left(
        config.querySizeLimit,
        encodeQuery({
          ltime: MAX_TIME,
          id: 0x7fff_ffff,
          addr: memberlist.self.endpoint.addr,
          port: 0xffff,
          sourceNode: node,
          filters: (options.filters ?? []).map(encodeFilter),
          flags: 1,
          relayFactor: 255,
          timeoutNs: MAX_TIME,
          name,
          payload,
        }),
      ),
    responsePayload: () =>
      left(
        config.queryResponseSizeLimit,
        encodeQueryResponse({ ltime: MAX_TIME, id: 0x7fff_ffff, from: node, flags: 1, payload }),
      ),
  };
}
