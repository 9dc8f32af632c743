import { create } from "@bufbuild/protobuf";
import type { Query } from "../../gossip/mod.ts";
import {
  BeaconAttestationSchema,
  ClusterEvent,
  type ClusterMessage,
  type Node,
  NodeSchema,
  PolicyQuerySchema,
  ProofVerificationSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
  VmStopRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Log } from "../../runtime/log.ts";
import { GOSSIP } from "../cluster/tags.ts";
import { decodeClusterMessage, encodeClusterMessage, encodeRefusal, unwrap } from "./cluster_messages.ts";

/** Queries of others that this node works on at once; more get no answer. */
export const MAX_QUERIES_IN_WORK = 64;

/** A further kind of query: what is asked in, the envelope of the answer out; nothing means no answer. */
export type QueryAnswerer = (message: ClusterMessage, sourceNode: string) => Promise<Uint8Array | undefined>;

/** What answers the queries of the gossip. */
export interface QueryAnswerParts {
  nodeName: string;
  /** Whether the asker is one of our agents, which asks for spawns by peer call only. */
  offer(request: VmSpawnRequest): Promise<VmSpawnResponse>;
  /** A spawn by query, as the original's nodes ask for it. */
  spawn(request: VmSpawnRequest): Promise<VmSpawnResponse>;
  /** Stops what runs here; undefined for what does not. */
  stop(id: string, graceMs: number | undefined): Promise<Node> | undefined;
  attest?: QueryAnswerer;
  policy?: QueryAnswerer;
  proof?: QueryAnswerer;
  answer(query: Query, payload: Uint8Array): void;
  log: Log;
}

/** Answers `hypercore_query`, the question that the original's nodes know. */
export class QueryAnswers {
  readonly #parts: QueryAnswerParts;
  /** Queries that are being worked on. */
  inWork = 0;
  /** Queries that got no answer because too many were being worked on. */
  dropped = 0;

  constructor(parts: QueryAnswerParts) {
    this.#parts = parts;
  }

  /** Takes a query; what is not ours, or too much at once, is left without an answer. */
  handle(query: Query): void {
    const { nodeName } = this.#parts;
    if (query.name !== GOSSIP.query || query.sourceNode === nodeName) return;
    if (this.inWork >= MAX_QUERIES_IN_WORK) return void this.dropped++;
    this.inWork++;
    this.#work(query).catch((error) => {
      this.#parts.log.error("cannot answer a query", {
        error: error instanceof Error ? error.stack : String(error),
      });
    }).finally(() => this.inWork--);
  }

  async #work(query: Query): Promise<void> {
    const { nodeName, answer } = this.#parts;
    const message = decodeClusterMessage(query.payload);
    if (message instanceof Error) return answer(query, encodeRefusal(message.message, nodeName));
    try {
      const reply = await this.#reply(message, query.sourceNode);
      if (reply !== undefined) answer(query, reply);
    } catch (error) {
      answer(query, encodeRefusal(error instanceof Error ? error.message : String(error), nodeName));
    }
  }

  #reply(message: ClusterMessage, from: string): Promise<Uint8Array | undefined> {
    switch (message.event) {
      case ClusterEvent.SPAWN:
        return this.#spawn(required(unwrap(message, VmSpawnRequestSchema)));
      case ClusterEvent.STOP:
        return this.#stop(message);
      case ClusterEvent.BEACON_ATTEST:
        required(unwrap(message, BeaconAttestationSchema));
        return this.#parts.attest?.(message, from) ?? unanswered();
      case ClusterEvent.POLICY_QUERY:
        required(unwrap(message, PolicyQuerySchema));
        return this.#parts.policy?.(message, from) ?? unanswered();
      case ClusterEvent.PROOF_VERIFY:
        required(unwrap(message, ProofVerificationSchema));
        return this.#parts.proof?.(message, from) ?? unanswered();
      case ClusterEvent.ERROR:
        return unanswered();
      default:
        return Promise.reject(new Error(`Cannot answer query "${Number(message.event)}": unknown kind`));
    }
  }

  async #spawn(request: VmSpawnRequest): Promise<Uint8Array> {
    const response = await (request.dryRun ? this.#parts.offer(request) : this.#parts.spawn(request));
    return encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnResponseSchema, response);
  }

  async #stop(message: ClusterMessage): Promise<Uint8Array | undefined> {
    const { id, graceMs } = required(unwrap(message, VmStopRequestSchema));
    const node = await this.#parts.stop(id, graceMs);
    return node && encodeClusterMessage(ClusterEvent.STOP, NodeSchema, create(NodeSchema, node));
  }
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("Cannot answer the query: its content is not what its kind says");
  return value;
}

function unanswered(): Promise<undefined> {
  return Promise.resolve(undefined);
}
