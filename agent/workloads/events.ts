import { RuntimeError } from "../../runtime/errors.ts";

/** What happened to a workload; `type` is one of those named in `hypercore.v1.WorkloadEvent`. */
export interface WorkloadEvent {
  atMs: number;
  id: string;
  type: "spawned" | "started" | "exited" | "oom-killed" | "restart-scheduled" | "stopped" | "failed";
  /** In words. */
  detail: string;
}

/** Events that wait for one slow reader before it is cut off. */
export const MAX_QUEUED_EVENTS = 1_024;
/** Readers at once. */
export const MAX_WATCHERS = 256;

/** Hands each event to every reader. A reader that does not keep up is ended with an error; nobody waits for it. */
export class EventHub {
  readonly #readers = new Set<{ queue: WorkloadEvent[]; wake: () => void; isOverrun: boolean }>();

  /** Readers that did not keep up, since the start. */
  cutOff = 0;

  /** Readers at the moment. */
  get watchers(): number {
    return this.#readers.size;
  }

  emit(event: WorkloadEvent): void {
    for (const reader of this.#readers) {
      if (reader.queue.length < MAX_QUEUED_EVENTS) reader.queue.push(event);
      else if (!reader.isOverrun) {
        reader.isOverrun = true;
        this.cutOff++;
      }
      reader.wake();
    }
  }

  /**
   * Events from now on, until `signal` aborts. Throws `exhausted` when there are too many readers, or when this one fell
   * behind.
   */
  watch(signal: AbortSignal): AsyncIterable<WorkloadEvent> {
    if (this.#readers.size >= MAX_WATCHERS) {
      throw new RuntimeError("exhausted", `Cannot watch events: ${MAX_WATCHERS} callers watch already`);
    }
    const reader = { queue: [] as WorkloadEvent[], wake: () => {}, isOverrun: false };
    const onAbort = () => reader.wake();
    this.#readers.add(reader);
    signal.addEventListener("abort", onAbort);
    const remove = () => {
      this.#readers.delete(reader);
      signal.removeEventListener("abort", onAbort);
    };
    if (signal.aborted) remove();
    return read(reader, { signal, remove });
  }
}

async function* read(
  reader: { queue: WorkloadEvent[]; wake: () => void; isOverrun: boolean },
  options: { signal: AbortSignal; remove: () => void },
): AsyncGenerator<WorkloadEvent> {
  try {
    while (!options.signal.aborted) {
      const event = reader.queue.shift();
      if (event !== undefined) yield event;
      else if (reader.isOverrun) {
        throw new RuntimeError("exhausted", "Cannot watch events: the reader fell too far behind");
      } else await new Promise<void>((resolve) => reader.wake = resolve);
    }
  } finally {
    options.remove();
  }
}
