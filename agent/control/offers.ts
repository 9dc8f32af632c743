import { create, toBinary } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  ErrorResponseSchema,
  type Offer,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { AbortScope } from "../../runtime/abort_scope.ts";
import { LATECOMER_MS } from "../cluster/placement.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { GOSSIP, TAG } from "../cluster/tags.ts";
import type { Membership } from "../membership/membership.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./cluster_messages.ts";

/** Longest wait for the answer to a call, milliseconds: the connection may have to be made first. */
export const CALL_WAIT_MS = 5_000;
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
  /** Asks one of our own nodes by a call, for what does not fit a query; absent where nobody can be called. */
  call?(member: ClusterMember, request: VmSpawnRequest, signal: AbortSignal): Promise<VmSpawnResponse>;
  /** Told of each answer. */
  onAnswer(answer: OfferAnswer): Wait;
}

/**
 * Asks members by one gossip query, which the original's nodes understand as well; where the request does not fit one, our
 * own nodes by a call each. Ends when all have answered, when `onAnswer` has heard enough and no more comes, or after
 * `timeoutMs`.
 */
export async function askForOffers(
  membership: Pick<Membership, "ask" | "members">,
  request: VmSpawnRequest,
  options: AskForOffers,
): Promise<void> {
  const { members, timeoutMs } = options;
  if (members.length === 0) return;
  const enough = new AbortController();
  const signal = options.signal ? AbortSignal.any([enough.signal, options.signal]) : enough.signal;
  const waiting = new Set(members.map(({ id }) => id));
  let latecomers: ReturnType<typeof setTimeout> | undefined;
  const answered = (answer: OfferAnswer) => {
    if (!waiting.delete(answer.member.id) || enough.signal.aborted) return;
    const wait = options.onAnswer(answer);
    if (wait === "settled" || waiting.size === 0) queueMicrotask(() => enough.abort());
    clearTimeout(latecomers);
    if (wait === "enough") latecomers = setTimeout(() => enough.abort(), LATECOMER_MS);
  };
  const { question, isCut } = questionFor(request);
  const isCalled = ({ tags }: ClusterMember) => isCut && tags[TAG.protocol] !== undefined;
  const asking = options.call === undefined ? [] : members.filter(isCalled);
  const calls = asking.map((member) => callFor(member, { ...options, request, signal, answered }));
  const others = members.filter((each) => !asking.includes(each));
  try {
    await Promise.all([
      ...calls,
      others.length > 0 && askAll(membership, question, { members: others, timeoutMs, signal, answered }),
    ]);
  } finally {
    clearTimeout(latecomers);
  }
  options.signal?.throwIfAborted();
}

/** By one query. */
async function askAll(
  membership: Pick<Membership, "ask" | "members">,
  question: VmSpawnRequest,
  options: {
    members: readonly ClusterMember[];
    timeoutMs: number;
    signal: AbortSignal;
    answered: (answer: OfferAnswer) => void;
  },
): Promise<void> {
  const { members, timeoutMs, signal, answered } = options;
  const byName = new Map(members.map((member) => [member.name, member]));
  const isEveryone = byName.size >= [...membership.members().values()].filter(isAlive).length - 1;
  await membership.ask(GOSSIP.query, {
    payload: encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnRequestSchema, question),
    filters: isEveryone ? [] : [{ kind: "nodes", nodes: [...byName.keys()] }],
    timeoutMs,
    signal,
    onResponse(from, payload) {
      const member = byName.get(from);
      if (member !== undefined) answered(readAnswer(member, payload));
    },
  });
}

/** By a call; one that does not answer in time is as silent as one that does not answer a query. */
async function callFor(
  member: ClusterMember,
  options: AskForOffers & {
    request: VmSpawnRequest;
    signal: AbortSignal;
    answered: (answer: OfferAnswer) => void;
  },
): Promise<void> {
  const { request, answered } = options;
  using scope = new AbortScope([options.signal], { timeoutMs: CALL_WAIT_MS });
  try {
    const { offer } = await options.call!(member, whole(request), scope.signal);
    answered({ kind: "offer", member, offer });
  } catch (error) {
    if (scope.signal.aborted) return;
    answered({ kind: "refusal", member, reason: error instanceof Error ? error.message : String(error) });
  }
}

/** A request without values of the environment and arguments, which may be secret: who only makes an offer needs none. */
function whole(request: VmSpawnRequest): VmSpawnRequest {
  const env = request.env.map((entry) => `${entry.split("=", 1)[0]}=`);
  return create(VmSpawnRequestSchema, { ...request, dryRun: true, env, args: [] });
}

/** What fits a query, and whether that leaves out what the answer depends on. */
function questionFor(request: VmSpawnRequest): { question: VmSpawnRequest; isCut: boolean } {
  const bare = create(VmSpawnRequestSchema, { ...request, dryRun: true, env: [], args: [], policyJson: "" });
  if (toBinary(VmSpawnRequestSchema, bare).length <= REQUEST_ROOM_BYTES) {
    return { question: bare, isCut: request.policyJson !== "" };
  }
  return { question: create(VmSpawnRequestSchema, { ...bare, labels: {}, constraints: [] }), isCut: true };
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
