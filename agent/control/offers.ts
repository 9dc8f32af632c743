import { create, toBinary } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  ErrorResponseSchema,
  type Offer,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { LATECOMER_MS } from "../cluster/placement.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { GOSSIP } from "../cluster/tags.ts";
import type { Membership } from "../membership/membership.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./cluster_messages.ts";

/** Bytes that the envelope and the query's own fields leave for a request. */
const REQUEST_ROOM_BYTES = 700;

/** One member's answer to the question whether it would take a workload. */
export type OfferAnswer =
  | { kind: "offer"; member: ClusterMember; offer?: Offer }
  | { kind: "refusal"; member: ClusterMember; reason: string };

/** What an answer means for the wait: `settled` ends it, `enough` ends it unless another follows soon. */
export type Wait = "settled" | "enough" | "open";

/** How offers are asked for. */
export interface AskForOffers {
  /** Who is asked; this node itself is not. */
  members: readonly ClusterMember[];
  /** Wait for answers at most, milliseconds. */
  timeoutMs: number;
  signal?: AbortSignal;
  /** Told of each answer. */
  onAnswer(answer: OfferAnswer): Wait;
}

/**
 * Asks members by one gossip query, which the original's nodes understand as well. Ends when all have answered, when
 * `onAnswer` has heard enough and no more comes, or after `timeoutMs`.
 */
export async function askForOffers(
  membership: Membership,
  request: VmSpawnRequest,
  options: AskForOffers,
): Promise<void> {
  const byName = new Map(options.members.map((member) => [member.name, member]));
  if (byName.size === 0) return;
  const enough = new AbortController();
  const signal = options.signal ? AbortSignal.any([enough.signal, options.signal]) : enough.signal;
  let latecomers: ReturnType<typeof setTimeout> | undefined;
  const isEveryone = byName.size >= [...membership.members().values()].filter(isAlive).length - 1;
  try {
    await membership.ask(GOSSIP.query, {
      payload: encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnRequestSchema, question(request)),
      filters: isEveryone ? [] : [{ kind: "nodes", nodes: [...byName.keys()] }],
      timeoutMs: options.timeoutMs,
      signal,
      onResponse(from, payload) {
        const member = byName.get(from);
        if (member === undefined) return;
        byName.delete(from);
        const wait = options.onAnswer(readAnswer(member, payload));
        if (wait === "settled" || byName.size === 0) queueMicrotask(() => enough.abort());
        clearTimeout(latecomers);
        if (wait === "enough") latecomers = setTimeout(() => enough.abort(), LATECOMER_MS);
      },
    });
  } finally {
    clearTimeout(latecomers);
  }
  options.signal?.throwIfAborted();
}

/** What a node must know to make an offer: no environment and arguments, which may be secret, or long. */
function question(request: VmSpawnRequest): VmSpawnRequest {
  const bare = create(VmSpawnRequestSchema, { ...request, dryRun: true, env: [], args: [], policyJson: "" });
  if (toBinary(VmSpawnRequestSchema, bare).length <= REQUEST_ROOM_BYTES) return bare;
  return create(VmSpawnRequestSchema, { ...bare, labels: {}, constraints: [] });
}

function readAnswer(member: ClusterMember, payload: Uint8Array): OfferAnswer {
  const message = decodeClusterMessage(payload);
  if (message instanceof Error) return { kind: "refusal", member, reason: "its answer cannot be read" };
  const response = message.event === ClusterEvent.SPAWN ? unwrap(message, VmSpawnResponseSchema) : undefined;
  if (response !== undefined) return { kind: "offer", member, offer: response.offer };
  const refusal = message.event === ClusterEvent.ERROR ? unwrap(message, ErrorResponseSchema) : undefined;
  return { kind: "refusal", member, reason: refusal?.error || "its answer cannot be read" };
}

function isAlive({ status }: ClusterMember): boolean {
  return status === "alive";
}
