import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type {
  AttachRequest,
  ExecRequest,
  InspectRequest,
  StreamLogsRequest,
  WatchEventsRequest,
  WorkloadService,
} from "../../proto/gen/hypercore/v1/workload_pb.ts";
import type { VmSpawnRequest } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ContainerEngine } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { logOwner } from "../workloads/log_owner.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import { parseArgs, parseEnv } from "../workloads/parse_spawn.ts";
import type { ClusterApi } from "./cluster_api.ts";
import { pullProgress, redactSpec, workloadState } from "./convert.ts";
import { streamProgress } from "./progress.ts";
import { bridge, takeStart, windowSize } from "./session.ts";
import { Slots } from "./slots.ts";

/** Exec and attach sessions at once. */
export const MAX_SESSIONS = 128;
/** Log streams at once. */
export const MAX_LOG_STREAMS = 256;
/** Length of a user or working directory of an exec. */
const MAX_EXEC_FIELD = 4_096;

/** What {@linkcode WorkloadApi} works with. */
export interface WorkloadApiOptions {
  api: ClusterApi;
  manager: WorkloadManager;
  engine: ContainerEngine;
}

/** What a workload's user does beyond the original's four calls. */
export class WorkloadApi {
  readonly #sessions = new Slots("exec and attach sessions", MAX_SESSIONS);
  readonly #logStreams = new Slots("log streams", MAX_LOG_STREAMS);
  readonly #options: WorkloadApiOptions;

  constructor(options: WorkloadApiOptions) {
    this.#options = options;
  }

  service(): ServiceImpl<typeof WorkloadService> {
    return {
      spawn: (request, context) => this.#spawn(request, context),
      inspect: (request) => this.#inspect(request),
      streamLogs: (request, context) => this.#streamLogs(request, context),
      exec: (requests, context) => this.#exec(requests, context),
      attach: (requests, context) => this.#attach(requests, context),
      watchEvents: (request, context) => this.#watchEvents(request, context),
    };
  }

  async *#spawn(request: VmSpawnRequest, { signal }: HandlerContext) {
    const { api } = this.#options;
    for await (const event of streamProgress((report) => api.spawn(request, { signal, ...report }))) {
      yield event.case === "pull"
        ? { event: { case: event.case, value: pullProgress(event.value) } }
        : { event };
    }
  }

  async #inspect({ id }: InspectRequest) {
    const { api, engine, manager } = this.#options;
    const workload = manager.get(id);
    const [info, spec] = await Promise.all([engine.get(workload.id), engine.spec(workload.id)]);
    return {
      workload: workloadState(workload, manager.url(workload)),
      node: api.node,
      address: info.address ?? "",
      pid: info.pid,
      imageDigest: info.imageDigest,
      runtime: info.runtime,
      logPath: info.logPath,
      specJson: JSON.stringify(redactSpec(spec)),
    };
  }

  async *#streamLogs({ id, follow, tail }: StreamLogsRequest, { signal }: HandlerContext) {
    using _slot = this.#logStreams.take();
    const { engine } = this.#options;
    for await (const data of engine.logs(await logOwner(id, this.#options), { follow, tail, signal })) {
      yield { data: data as Uint8Array<ArrayBuffer> };
    }
  }

  async *#exec(requests: AsyncIterable<ExecRequest>, { signal }: HandlerContext) {
    using _slot = this.#sessions.take();
    const { engine, manager } = this.#options;
    const { first, rest } = await takeStart(requests);
    const start = (first as ExecRequest["request"] & { case: "start" }).value;
    const args = parseArgs(start.args);
    if (args.length === 0) throw new RuntimeError("invalid", 'Cannot accept args "": a command is needed');
    const session = await engine.exec(manager.get(start.id).id, {
      args,
      env: parseEnv(start.env),
      workingDirectory: textField("working_directory", start.workingDirectory),
      user: textField("user", start.user),
      tty: start.tty,
      stdin: start.stdin,
      window: start.window && windowSize(start.window),
      signal,
    });
    const output = bridge(session, rest, signal);
    try {
      yield { response: { case: "started" as const, value: session.pid } };
      let next = await output.next();
      for (; !next.done; next = await output.next()) {
        yield { response: { case: next.value.stream, value: next.value.data as Uint8Array<ArrayBuffer> } };
      }
      if (next.value !== undefined) yield { response: { case: "exitCode" as const, value: next.value } };
    } finally {
      await output.return(0);
      await session[Symbol.asyncDispose]();
    }
  }

  async *#attach(requests: AsyncIterable<AttachRequest>, { signal }: HandlerContext) {
    using _slot = this.#sessions.take();
    const { engine, manager } = this.#options;
    const { first, rest } = await takeStart(requests);
    const start = (first as AttachRequest["request"] & { case: "start" }).value;
    const session = await engine.attach(manager.get(start.id).id, {
      stdin: start.stdin,
      window: start.window && windowSize(start.window),
      tail: start.tail,
      signal,
    });
    const output = bridge(session, rest, signal);
    try {
      yield { response: { case: "tty" as const, value: session.tty } };
      let next = await output.next();
      for (; !next.done; next = await output.next()) {
        yield { response: { case: "output" as const, value: next.value.data as Uint8Array<ArrayBuffer> } };
      }
      if (next.value !== undefined) yield { response: { case: "exitCode" as const, value: next.value } };
    } finally {
      await output.return(0);
      await session[Symbol.asyncDispose]();
    }
  }

  async *#watchEvents({ id }: WatchEventsRequest, { signal }: HandlerContext) {
    const { manager } = this.#options;
    const wanted = id === "" ? undefined : manager.get(id).id;
    for await (const event of manager.watch(signal)) {
      if (wanted === undefined || event.id === wanted) yield { ...event, atMs: BigInt(event.atMs) };
    }
  }
}

function textField(field: string, text: string): string | undefined {
  if (text.length > MAX_EXEC_FIELD || text.includes("\0")) {
    throw new RuntimeError("invalid", `Cannot accept ${field}: it is too long, or it holds a NUL`);
  }
  return text === "" ? undefined : text;
}
