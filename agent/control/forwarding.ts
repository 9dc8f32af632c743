import type { DescService } from "@bufbuild/protobuf";
import type { Client, HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import type { AttachRequest, ExecRequest } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import type { VmSpawnRequest, VmSpawnResponse } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { CreateOptions } from "../../runtime/engine.ts";
import { pullProgress } from "../api/convert.ts";
import { streamProgress } from "../api/progress.ts";

/** Time a short question to another node may take, milliseconds. */
export const PEER_CALL_MS = 15_000;

/** Where a workload runs, as this node knows. */
export interface Location {
  id: string;
  /** Absent: here. */
  nodeId?: string;
}

/** What forwarding works with. */
export interface ForwardingParts {
  /** By id, unique prefix of an id, or name. Throws `RuntimeError` for what is nowhere, or in several places. */
  locate(idOrName: string): Location;
  /** The same for a log, which outlives its workload for a while. */
  locateLog(idOrName: string): Promise<Location>;
  client<S extends DescService>(service: S, nodeId: string): Client<S>;
  spawn(request: VmSpawnRequest, options: CreateOptions): Promise<VmSpawnResponse>;
}

type Workloads = ServiceImpl<typeof WorkloadService>;

/** The workload service of a whole cluster: each call goes to the node that runs the workload. */
export function clusterWorkloads(local: Workloads, parts: ForwardingParts): Workloads {
  const remote = (nodeId: string) => parts.client(WorkloadService, nodeId);
  return {
    async *spawn(request, { signal }) {
      for await (const event of streamProgress((report) => parts.spawn(request, { signal, ...report }))) {
        yield event.case === "pull"
          ? { event: { case: event.case, value: pullProgress(event.value) } }
          : { event };
      }
    },
    inspect(request, context) {
      const { id, nodeId } = parts.locate(request.id);
      if (nodeId === undefined) return local.inspect({ ...request, id }, context);
      return remote(nodeId).inspect({ id }, { signal: context.signal, timeoutMs: PEER_CALL_MS });
    },
    async *streamLogs(request, context) {
      const { id, nodeId } = await parts.locateLog(request.id);
      if (nodeId === undefined) yield* local.streamLogs({ ...request, id }, context);
      else yield* remote(nodeId).streamLogs({ ...request, id }, { signal: context.signal, timeoutMs: 0 });
    },
    async *exec(requests, context) {
      yield* session(requests, context, {
        locate: parts.locate,
        local: local.exec,
        remote: (nodeId, sent) => remote(nodeId).exec(sent, { signal: context.signal, timeoutMs: 0 }),
      });
    },
    async *attach(requests, context) {
      yield* session(requests, context, {
        locate: parts.locate,
        local: local.attach,
        remote: (nodeId, sent) => remote(nodeId).attach(sent, { signal: context.signal, timeoutMs: 0 }),
      });
    },
    async *watchEvents(request, context) {
      const { id, nodeId } = request.id === "" ? { id: "", nodeId: undefined } : parts.locate(request.id);
      if (nodeId === undefined) yield* local.watchEvents({ ...request, id }, context);
      else yield* remote(nodeId).watchEvents({ ...request, id }, { signal: context.signal, timeoutMs: 0 });
    },
  };
}

/** Passes a session on to where its workload runs; only its first message is looked at. */
async function* session<R extends ExecRequest | AttachRequest, A>(
  requests: AsyncIterable<R>,
  context: HandlerContext,
  to: {
    locate: ForwardingParts["locate"];
    local: (requests: AsyncIterable<R>, context: HandlerContext) => AsyncIterable<A>;
    remote: (nodeId: string, requests: AsyncIterable<R>) => AsyncIterable<A>;
  },
): AsyncGenerator<A> {
  const iterator = requests[Symbol.asyncIterator]();
  const first = await iterator.next();
  if (first.done || first.value.request.case !== "start") {
    throw new ConnectError(
      "Cannot open the session: the first message must be its start",
      Code.InvalidArgument,
    );
  }
  const { id, nodeId } = to.locate(first.value.request.value.id);
  first.value.request.value.id = id;
  const sent = chain(first.value, iterator);
  yield* nodeId === undefined ? to.local(sent, context) : to.remote(nodeId, sent);
}

async function* chain<T>(first: T, rest: AsyncIterator<T>): AsyncGenerator<T> {
  yield first;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}
