import type { PortFailure, ProxyStats, StaleRoute } from "./mod.ts";
import type { WorkerNews, WorkerReply, WorkerRequest } from "./worker_messages.ts";

/** A worker that does not answer for this long is taken for dead. */
const REPLY_TIMEOUT_MS = 15_000;
/** A worker that starts has modules to load, which takes its time on a machine that is busy starting. */
const START_TIMEOUT_MS = 60_000;
/** How old the counters of a worker that crashes can be. */
const SAMPLE_MS = 1_000;

export interface WorkerHandleOptions {
  createWorker(): Worker;
  /** Called once, unless the worker was stopped. `last` are its counters, up to a second old. */
  onDeath(reason: string, last?: ProxyStats): void;
  onStale?(route: StaleRoute): void;
}

type Body<Type extends WorkerRequest["type"]> = Omit<Extract<WorkerRequest, { type: Type }>, "type" | "id">;

/** One worker thread as the supervisor sees it: requests with replies, and the news of its death. */
export class WorkerHandle {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, PromiseWithResolvers<WorkerReply>>();
  readonly #sampler: ReturnType<typeof setInterval>;
  #nextId = 1;
  #dead = false;
  #started = false;
  #last?: ProxyStats;

  constructor(private readonly options: WorkerHandleOptions) {
    this.#worker = options.createWorker();
    this.#worker.addEventListener("message", ({ data }: MessageEvent<WorkerReply | WorkerNews>) => {
      if (data.type === "stale") options.onStale?.(data.route);
      else this.#settle(data);
    });
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#die(event.message);
    });
    this.#worker.addEventListener("messageerror", () => this.#die("a message could not be read"));
    this.#sampler = setInterval(() => {
      // A failure is a death, which has been reported.
      if (this.#started) this.stats().catch(() => {});
    }, SAMPLE_MS);
  }

  get isDead(): boolean {
    return this.#dead;
  }

  async start(body: Body<"start">): Promise<void> {
    await this.#ask({ type: "start", ...body }, START_TIMEOUT_MS);
    this.#started = true;
  }

  async apply(body: Body<"apply">): Promise<PortFailure[]> {
    const reply = await this.#ask({ type: "apply", ...body });
    return reply.type === "done" ? reply.failures : [];
  }

  async hop(body: Body<"hop">): Promise<PortFailure[]> {
    const reply = await this.#ask({ type: "hop", ...body });
    return reply.type === "done" ? reply.failures : [];
  }

  /** Its counters; the last known ones when it dies over the question. */
  async stats(): Promise<ProxyStats | undefined> {
    try {
      const reply = await this.#ask({ type: "stats" });
      if (reply.type === "stats") this.#last = reply.stats;
    } catch (error) {
      if (!this.#dead) throw error;
    }
    return this.#last;
  }

  /** Lets requests in flight finish, then ends the thread. */
  async stop(graceMs: number): Promise<void> {
    try {
      if (!this.#dead) await this.#ask({ type: "stop" }, graceMs + REPLY_TIMEOUT_MS);
    } catch (error) {
      if (!this.#dead) throw error;
    } finally {
      this.#end(new Error("the worker has been stopped"));
    }
  }

  #ask(request: DistributiveOmit<WorkerRequest, "id">, timeoutMs = REPLY_TIMEOUT_MS): Promise<WorkerReply> {
    if (this.#dead) return Promise.reject(new Error("the worker is dead"));
    const id = this.#nextId++;
    const waiting = Promise.withResolvers<WorkerReply>();
    this.#waiting.set(id, waiting);
    const timer = setTimeout(() => this.#die(`no reply to "${request.type}" in ${timeoutMs} ms`), timeoutMs);
    this.#worker.postMessage({ ...request, id });
    return waiting.promise.finally(() => clearTimeout(timer));
  }

  #settle(reply: WorkerReply): void {
    this.#waiting.get(reply.id)?.resolve(reply);
    this.#waiting.delete(reply.id);
  }

  #die(reason: string): void {
    if (this.#dead) return;
    this.#end(new Error(`the worker died: ${reason}`));
    this.options.onDeath(reason, this.#last);
  }

  #end(error: Error): void {
    this.#dead = true;
    clearInterval(this.#sampler);
    this.#worker.terminate();
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
