import { create, fromBinary } from "@bufbuild/protobuf";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "../../agent/control/cluster_messages.ts";
import { encodeFragments } from "../../agent/cluster/go_fragments.ts";
import { joinAs, type TestNode } from "../../agent/testing.ts";
import type { Query, Serf } from "../../gossip/mod.ts";
import {
  ClusterEvent,
  type ClusterMessage,
  ErrorResponseSchema,
  NodeSchema,
  type NodeStateResponse,
  NodeStateResponseSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
  VmStopRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

/** A node as the original's: it gossips, takes queries, and tells what it runs by fragments; there is no calling it. */
export class GoNode implements AsyncDisposable {
  readonly workloads = new Map<string, VmSpawnRequest>();
  /** Requests that came by query, dry runs among them. */
  readonly asked: VmSpawnRequest[] = [];
  /** Fragments of other nodes' states, as they came. */
  readonly fragments: NodeStateResponse[] = [];
  /** Why it takes nothing, if it doesn't. */
  refusal = "";
  #nextId = 1;

  private constructor(readonly serf: Serf) {
    serf.listen((event) => {
      if (event.kind === "query" && event.name === "hypercore_query" && event.sourceNode !== serf.name) {
        this.#answer(event);
      }
      if (event.kind === "user" && event.name === "hypercore_state_broadcast") {
        this.fragments.push(fromBinary(NodeStateResponseSchema, event.payload));
      }
    });
  }

  /** Joins the cluster of `node`. */
  static async join(node: TestNode, name: string): Promise<GoNode> {
    return new GoNode(await joinAs(node, name, {}));
  }

  /** Tells everyone what runs here. */
  broadcast(): void {
    const workloads = [...this.workloads].map(([id, sourceRequest]): WorkloadState =>
      create(WorkloadStateSchema, { id, sourceRequest })
    );
    const uuid = crypto.randomUUID();
    for (const payload of encodeFragments({ name: this.serf.name, uuid, workloads })) {
      this.serf.userEvent("hypercore_state_broadcast", payload, { coalesce: false });
    }
  }

  /** Asks one node by a query with these bytes; resolves its answer. Throws where there is none. */
  async ask(node: string, payload: Uint8Array): Promise<ClusterMessage> {
    let answer: Uint8Array | undefined;
    const enough = new AbortController();
    await this.serf.query("hypercore_query", {
      payload,
      filters: [{ kind: "nodes", nodes: [node] }],
      timeoutMs: 60_000,
      signal: enough.signal,
      onResponse(_from, bytes) {
        answer = bytes;
        queueMicrotask(() => enough.abort());
      },
    });
    const message = answer && decodeClusterMessage(answer);
    if (message === undefined || message instanceof Error) throw new Error(`no answer: ${message}`);
    return message;
  }

  /** Ids that this node was told `name` runs, in its last broadcast that was complete in one fragment. */
  told(name: string): string[] | undefined {
    return this.fragments.findLast(({ node }) => node?.id === name && node.ip.endsWith("_complete"))
      ?.workloads.map(({ id }) => id);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.serf[Symbol.asyncDispose]();
  }

  #answer(query: Query): void {
    const message = decodeClusterMessage(query.payload);
    if (message instanceof Error) return;
    const request = unwrap(message, VmSpawnRequestSchema);
    const stop = unwrap(message, VmStopRequestSchema);
    if (message.event === ClusterEvent.SPAWN && request !== undefined) this.#spawn(query, request);
    if (message.event === ClusterEvent.STOP && stop !== undefined && this.workloads.delete(stop.id)) {
      const node = create(NodeSchema, { id: this.serf.name, ip: "127.0.0.1" });
      this.serf.respond(query, encodeClusterMessage(ClusterEvent.STOP, NodeSchema, node));
      this.broadcast();
    }
  }

  #spawn(query: Query, request: VmSpawnRequest): void {
    this.asked.push(request);
    if (this.refusal !== "") {
      const error = create(ErrorResponseSchema, { error: this.refusal });
      return this.serf.respond(query, encodeClusterMessage(ClusterEvent.ERROR, ErrorResponseSchema, error));
    }
    const id = request.dryRun ? "" : `go-${this.#nextId++}`;
    const response = create(VmSpawnResponseSchema, { id, url: id && `${id}.example.com` });
    this.serf.respond(query, encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnResponseSchema, response));
    if (request.dryRun) return;
    this.workloads.set(id, request);
    this.broadcast();
  }
}

/** Ids that a node lists, by the name of the node that runs them. */
export function listed(node: TestNode): Map<string, string> {
  const { states } = node.running.cluster.calls.list();
  return new Map(states.flatMap(({ node, workloads }) => workloads.map(({ id }) => [id, node!.name])));
}
