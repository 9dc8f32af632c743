import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  ErrorResponseSchema,
  type Node,
  NodeSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
  VmStopRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { TAG } from "../cluster/tags.ts";
import type { Membership } from "../membership/membership.ts";
import { askOne } from "./ask_one.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./cluster_messages.ts";

/** Wait for a node of the original's kind to start a workload, image included, milliseconds. */
export const GO_SPAWN_MS = 60_000;
/** Wait for one to stop a workload, milliseconds. */
export const GO_STOP_MS = 30_000;

/** Whether a member is none of our agents: a node of the original's kind, which takes queries and no calls. */
export function isOriginal({ tags }: Pick<ClusterMember, "tags">): boolean {
  return tags[TAG.protocol] === undefined;
}

/** What a node of the original's kind is asked to do: by a query for it alone. */
export class OriginalNodes {
  readonly #membership: Pick<Membership, "ask">;

  constructor(membership: Pick<Membership, "ask">) {
    this.#membership = membership;
  }

  /** Starts a workload there; the node chooses its id. Throws `unavailable` with its reason, `invalid` for what is too long. */
  async spawn(
    member: ClusterMember,
    request: VmSpawnRequest,
    signal: AbortSignal | undefined,
  ): Promise<VmSpawnResponse> {
    const payload = encodeClusterMessage(
      ClusterEvent.SPAWN,
      VmSpawnRequestSchema,
      create(VmSpawnRequestSchema, { ...request, dryRun: false }),
    );
    const what = { event: ClusterEvent.SPAWN, schema: VmSpawnResponseSchema, action: "start the workload" };
    const response = await this.#ask(member, payload, { ...what, timeoutMs: GO_SPAWN_MS, signal });
    return create(VmSpawnResponseSchema, { ...response, node: member.name });
  }

  /** Stops a workload there. Throws `unavailable` with the node's reason. */
  async stop(member: ClusterMember, id: string): Promise<Node> {
    const payload = encodeClusterMessage(
      ClusterEvent.STOP,
      VmStopRequestSchema,
      create(VmStopRequestSchema, { id }),
    );
    const what = { event: ClusterEvent.STOP, schema: NodeSchema, action: `stop workload "${id}"` };
    return await this.#ask(member, payload, { ...what, timeoutMs: GO_STOP_MS });
  }

  async #ask<S extends DescMessage>(
    member: ClusterMember,
    payload: Uint8Array,
    expected: { event: ClusterEvent; schema: S; action: string; timeoutMs: number; signal?: AbortSignal },
  ): Promise<MessageShape<S>> {
    const { event, schema, action, timeoutMs, signal } = expected;
    const answer = await askOne(this.#membership, { member: member.name, payload, timeoutMs, signal });
    const message = answer && decodeClusterMessage(answer);
    if (message !== undefined && !(message instanceof Error)) {
      const content = message.event === event ? unwrap(message, schema) : undefined;
      if (content !== undefined) return content;
    }
    throw new RuntimeError(
      "unavailable",
      `Cannot ${action} on node "${member.name}": ${reasonOf(message)}`,
    );
  }
}

function reasonOf(message: ReturnType<typeof decodeClusterMessage> | undefined): string {
  if (message === undefined) return "it did not answer";
  const refusal = !(message instanceof Error) && message.event === ClusterEvent.ERROR
    ? unwrap(message, ErrorResponseSchema)
    : undefined;
  return refusal?.error || "its answer cannot be read";
}
