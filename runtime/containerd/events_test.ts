import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { TaskExitSchema } from "../../proto/gen/containerd/events/events_pb.ts";
import { EnvelopeSchema } from "../../proto/gen/containerd/services/events/v1/events_pb.ts";
import { silentLog } from "../log.ts";
import { anyMessage } from "./any.ts";
import { type EventSource, MAX_EARLY_EVENTS, type TaskEvent, taskEvents } from "./events.ts";

/** What a containerd sends of a process that ended. */
function exit(pid: number) {
  const event = anyMessage(TaskExitSchema, create(TaskExitSchema, { containerId: "c", id: "c", pid }));
  return create(EnvelopeSchema, { topic: "/tasks/exit", event });
}

/** A containerd that sends these exits before the marker comes back, and those after it. */
function containerd(early: number[], late: number[]): EventSource {
  const marker = Promise.withResolvers<string>();
  const events = {
    publish({ topic }: { topic: string }) {
      marker.resolve(topic);
      return Promise.resolve({});
    },
    async *subscribe(_request: unknown, { signal }: { signal: AbortSignal }) {
      for (const pid of early) yield exit(pid);
      yield create(EnvelopeSchema, { topic: await marker.promise });
      for (const pid of late) yield exit(pid);
      const ended = Promise.withResolvers<void>();
      signal.addEventListener("abort", () => ended.resolve());
      if (!signal.aborted) await ended.promise;
    },
  };
  return { namespace: "test", events: events as unknown as EventSource["events"] };
}

async function take(source: EventSource, count: number): Promise<TaskEvent[]> {
  const taken: TaskEvent[] = [];
  const end = new AbortController();
  for await (const event of taskEvents(source, { signal: end.signal, log: silentLog })) {
    taken.push(event);
    if (taken.length === count) end.abort();
  }
  return taken;
}

const pids = (events: TaskEvent[]) => events.map((event) => event.type === "exit" ? event.pid : event.type);

Deno.test("what happens before a subscription is proved comes after resync, in order", async () => {
  assert.deepEqual(pids(await take(containerd([1, 2], [3]), 4)), ["resync", 1, 2, 3]);
});

Deno.test("rule 8: no more early events are kept than the limit: resync tells to look for oneself, and what comes later is all there", async () => {
  const early = Array.from({ length: MAX_EARLY_EVENTS + 5 }, (_, n) => n);
  const late = [9_001, 9_002];
  const kept = early.slice(0, MAX_EARLY_EVENTS);
  const taken = await take(containerd(early, late), 1 + kept.length + late.length);
  assert.deepEqual(pids(taken), ["resync", ...kept, ...late]);
});
