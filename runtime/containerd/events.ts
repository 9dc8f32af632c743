import { setTimeout as delay } from "node:timers/promises";
import { create, fromBinary } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import {
  ContainerCreateSchema,
  TaskDeleteSchema,
  TaskExitSchema,
  TaskOOMSchema,
} from "../../proto/gen/containerd/events/events_pb.ts";
import type { Envelope } from "../../proto/gen/containerd/services/events/v1/events_pb.ts";
import { RuntimeError, type RuntimeErrorCode } from "../errors.ts";
import type { Log } from "../log.ts";
import { anyMessage } from "./any.ts";
import type { ContainerdClient } from "./client.ts";

/** What happens to tasks in the client's namespace. */
export type TaskEvent =
  /** The subscription is (again) in force: what happened before may have been missed. Always first. */
  | { type: "resync" }
  /** A process ended: the init process, or the exec `execId`. */
  | { type: "exit"; containerId: string; execId?: string; pid: number; exitCode: number; atMs: number }
  | { type: "oom"; containerId: string }
  /** The task is gone, e.g. since its shim died. */
  | { type: "delete"; containerId: string };

/** Pauses between attempts to subscribe: the first, doubling to the last, in milliseconds. */
const RETRY_MS = { first: 20, last: 1_000 };

/** Failures that say that containerd is away, not that the request is wrong. */
const RETRIED: ReadonlySet<RuntimeErrorCode> = new Set(["unavailable", "timeout"]);

/** How often the marker that proves a subscription is sent until it comes back, in milliseconds. */
const MARKER_INTERVAL_MS = 50;

/** Most events kept while the marker is under way; more are dropped, which `resync` makes good. */
export const MAX_EARLY_EVENTS = 1_024;

/** What events are read from: of a client this much. */
export type EventSource = Pick<ContainerdClient, "namespace" | "events">;

/**
 * The events of the client's namespace, for as long as `signal` says. A subscription that breaks (containerd
 * restarted) is taken up again, and `resync` tells of it.
 *
 * containerd does not say when a subscription takes effect and replays nothing. So each begins with an event of our
 * own, published until it comes back: only then is `resync` yielded, and nothing that happens after it is missed.
 */
export async function* taskEvents(
  client: EventSource,
  options: { signal: AbortSignal; log: Log },
): AsyncGenerator<TaskEvent> {
  const { signal, log } = options;
  let retryMs = RETRY_MS.first;
  while (!signal.aborted) {
    try {
      for await (const event of subscription(client, signal)) {
        retryMs = RETRY_MS.first;
        yield event;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof RuntimeError) || !RETRIED.has(error.code)) throw error;
      log.debug("containerd event stream broke", { error: error.message });
    }
    await delay(retryMs, undefined, { signal }).catch(() => {});
    retryMs = Math.min(retryMs * 2, RETRY_MS.last);
  }
}

/** One subscription, until it breaks. */
async function* subscription(client: EventSource, signal: AbortSignal): AsyncGenerator<TaskEvent> {
  const end = new AbortController();
  const scope = AbortSignal.any([signal, end.signal]);
  const marker = `/hypercore/subscribed/${crypto.randomUUID()}`;
  const filters = [`topic~="^/tasks/(exit|oom|delete)$"`, `topic=="${marker}"`]
    .map((filter) => `namespace==${client.namespace},${filter}`);
  const marked = new AbortController();
  const marking = publishUntil(client, marker, AbortSignal.any([scope, marked.signal]));
  // A failure to publish ends the subscription; it is thrown below.
  marking.catch((error) => end.abort(error));
  try {
    const early: TaskEvent[] = [];
    for await (const envelope of client.events.subscribe({ filters }, { signal: scope })) {
      if (envelope.topic === marker) {
        if (marked.signal.aborted) continue;
        marked.abort();
        yield { type: "resync" };
        yield* early.splice(0);
        continue;
      }
      const event = decodeEvent(envelope);
      if (event === undefined) continue;
      if (marked.signal.aborted) yield event;
      else if (early.length < MAX_EARLY_EVENTS) early.push(event);
    }
  } catch (error) {
    throw end.signal.aborted ? end.signal.reason : error;
  } finally {
    marked.abort();
    end.abort();
    await marking.catch(() => {});
  }
}

async function publishUntil(client: EventSource, topic: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await client.events.publish({ topic, event: MARKER }, { signal });
      await delay(MARKER_INTERVAL_MS, undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}

/** containerd wants a payload of a type that it knows. */
const MARKER = anyMessage(
  ContainerCreateSchema,
  create(ContainerCreateSchema, { id: "hypercore-subscribed" }),
);

function decodeEvent(envelope: Envelope): TaskEvent | undefined {
  const value = envelope.event?.value;
  if (value === undefined) return undefined;
  switch (envelope.event?.typeUrl) {
    case "containerd.events.TaskExit": {
      const exit = fromBinary(TaskExitSchema, value);
      return {
        type: "exit",
        containerId: exit.containerId,
        ...(exit.id !== exit.containerId && { execId: exit.id }),
        pid: exit.pid,
        exitCode: exit.exitStatus,
        atMs: exit.exitedAt ? timestampMs(exit.exitedAt) : 0,
      };
    }
    case "containerd.events.TaskOOM":
      return { type: "oom", containerId: fromBinary(TaskOOMSchema, value).containerId };
    case "containerd.events.TaskDelete": {
      const { containerId, id } = fromBinary(TaskDeleteSchema, value);
      return id === "" || id === containerId ? { type: "delete", containerId } : undefined;
    }
    default:
      return undefined;
  }
}
