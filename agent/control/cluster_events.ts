import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ClusterEventSchema } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { WorkloadChange } from "../cluster/workload_change.ts";
import { Channel } from "./channel.ts";

/** Readers of the cluster's events at once. */
export const MAX_EVENT_READERS = 256;

/** What happened, and where. */
export type ClusterEventInit = MessageInitShape<typeof ClusterEventSchema>;

/** What happens in the cluster, as this node learns of it, for every reader. */
export class ClusterEvents {
  readonly #readers = new Set<Channel<ClusterEventInit>>();
  readonly #nowMs: () => number;
  /** Readers that did not keep up, since the start. */
  cutOff = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get readers(): number {
    return this.#readers.size;
  }

  emit(node: string, event: ClusterEventInit["event"]): void {
    for (const reader of this.#readers) {
      if (!reader.push({ atMs: BigInt(this.#nowMs()), node, event })) this.cutOff++;
    }
  }

  /** Another node's workload changed, by its state. */
  emitChange(node: string, id: string, change: WorkloadChange): void {
    this.emit(node, { case: "workload", value: { ...change, id, atMs: BigInt(this.#nowMs()) } });
  }

  /** From now on until the signal aborts. Throws `exhausted` when there are too many readers. */
  async *watch(signal: AbortSignal): AsyncGenerator<ClusterEventInit> {
    if (this.#readers.size >= MAX_EVENT_READERS) {
      throw new RuntimeError("exhausted", `Cannot watch events: ${MAX_EVENT_READERS} callers watch already`);
    }
    const channel = new Channel<ClusterEventInit>("events");
    this.#readers.add(channel);
    try {
      yield* channel.read(signal);
    } finally {
      this.#readers.delete(channel);
    }
  }
}
