import type { ContainerEngine, ContainerMetrics } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import type { NodeIdentity } from "../beacon/identity.ts";
import type { WorkloadEvent } from "../workloads/events.ts";
import { Semaphore } from "../workloads/semaphore.ts";
import { KeyedQueue } from "../workloads/keyed_queue.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { Workload } from "../workloads/workload.ts";
import type { ProofKind } from "./body.ts";
import { hashOf, type ProofEntry, signBody } from "./entry.ts";
import type { ProofLog } from "./log_file.ts";
import type { ProofLogs } from "./log_store.ts";
import { proofMessage } from "./message.ts";
import { nextBody, type ProofTail, type RunFacts } from "./next_body.ts";
import { specObject } from "./spec_object.ts";
import { type Verdict, type VerifierOptions } from "./verifier.ts";
import { verifyInPortions } from "./verify_in_portions.ts";

/** Time between two proofs of a running workload when nobody says, milliseconds. */
export const DEFAULT_PROOF_INTERVAL_MS = 60_000;
/** Workloads that are measured at once. */
export const MAX_CONCURRENT_PROOFS = 4;
/** Work on one log that may wait. */
export const MAX_QUEUED_PER_LOG = 64;
/** Time between two looks for logs that have had their time, milliseconds. */
export const SWEEP_INTERVAL_MS = 600_000;
/** Proofs are told of this long after the first that nobody knows of yet, so that a round is told at once, milliseconds. */
export const TELL_DELAY_MS = 5_000;
/** Pause before the events are opened again after this reader was cut off, milliseconds. */
const RETRY_MS = 1_000;

/** What a keeper works with. */
export interface ProofKeeperOptions {
  workloads: Pick<WorkloadManager, "list" | "find" | "watch">;
  engine: Pick<ContainerEngine, "metrics">;
  identity: NodeIdentity;
  logs: ProofLogs;
  log: Log;
  intervalMs: number;
  /** Milliseconds since the epoch. */
  nowMs: () => number;
  /** Milliseconds of a clock that nobody can set. */
  monotonicMs: () => number;
  setTimer: (callback: () => void, delayMs: number) => () => void;
  /** Told, after {@linkcode TELL_DELAY_MS}, that workloads have newer proofs. */
  onProofs?: () => void;
  /** Told what the metrics count. */
  observe?: (observation: ProofObservation) => void;
}

/** What the metrics count. */
export type ProofObservation =
  | { kind: "generated"; durationMs: number }
  | { kind: "aggregated"; durationMs: number }
  | { kind: "failed" }
  | { kind: "verified"; result: Verdict["result"] };

/** What is known of a workload between two proofs. */
interface Tracked {
  log?: ProofLog;
  facts?: RunFacts;
  /** When the last proof of this agent was made, by the monotonic clock. */
  lastMs?: number;
}

/** What happened, taken down at the moment. */
interface Occasion {
  id: string;
  kind: ProofKind;
  workload?: Workload;
  facts?: RunFacts;
  endedAtMs?: number;
  exitCode?: number;
}

/**
 * Makes the proofs of this node: at each start, end and stop of a workload, and of what runs each interval. The work on
 * one log is done in order; a proof that cannot be made is logged, counted, and made up for by the next one.
 */
export class ProofKeeper implements AsyncDisposable {
  readonly #options: ProofKeeperOptions;
  readonly #tracked = new Map<string, Tracked>();
  readonly #queue = new KeyedQueue(MAX_QUEUED_PER_LOG);
  readonly #places = new Semaphore(MAX_CONCURRENT_PROOFS);
  readonly #closing = new AbortController();
  #watching?: Promise<void>;
  #cancelTimer = () => {};
  #cancelTelling?: () => void;
  #isTicking = false;
  #sweptMs = -Infinity;

  constructor(options: ProofKeeperOptions) {
    this.#options = options;
  }

  /** Begins to listen; to be called before the workloads of an earlier agent are adopted. */
  start(): void {
    this.#watching = this.#watch();
  }

  /** Takes up the logs of an earlier agent; to be called when its workloads have been adopted. Nobody waits for the work. */
  async resume(): Promise<void> {
    const { workloads, logs, log } = this.#options;
    for (const workload of workloads.list()) {
      if (workload.phase === "running" && !this.#tracked.has(workload.id)) {
        void this.#note({ id: workload.id, kind: "resume", workload, facts: this.#factsOf(workload) });
      }
    }
    try {
      await this.#sweep();
      this.#noteGone(await logs.ids());
    } catch (error) {
      log.warn("cannot look through the proofs of an earlier agent", { error: reasonOf(error) });
    }
    this.#arm();
  }

  /** What is not here any more, and nobody was told why. */
  #noteGone(ids: Iterable<string>): void {
    const { workloads } = this.#options;
    for (const id of ids) {
      if (workloads.find(id) === undefined) void this.#note({ id, kind: "gone" });
    }
  }

  /** Whether there are proofs of this workload here. */
  async has(id: string): Promise<boolean> {
    return this.#tracked.get(id)?.log !== undefined || (await this.lines(id)).length > 0;
  }

  /** The log's lines, behind whatever is being written. */
  lines(id: string): Promise<string[]> {
    return this.#queue.run(id, () => this.#options.logs.lines(id));
  }

  /** Verifies the log of a workload of this node, against the newest proof that this agent made. */
  async verify(id: string, options: Pick<VerifierOptions, "wantedHash"> = {}): Promise<Verdict> {
    const { identity: { nodeId, publicKey, rotations } } = this.#options;
    const read = await this.#queue.run(id, async () => ({
      lines: await this.#options.logs.lines(id),
      lastHash: this.#tracked.get(id)?.log?.tail?.hash,
    }));
    return await verifyInPortions(read.lines, {
      claim: { nodeId, publicKey, rotations },
      workload: id,
      lastHash: read.lastHash,
      ...options,
    });
  }

  /** Resolves when all that is known by now is in the logs. */
  settled(): Promise<void> {
    return this.#queue.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new RuntimeError("canceled", "Cannot go on: the agent is stopping"));
    this.#cancelTimer();
    this.#cancelTelling?.();
    await this.#watching;
    await this.#queue.settled();
  }

  // ---- What happens.

  async #watch(): Promise<void> {
    const { workloads, log, setTimer } = this.#options;
    for (let wasCutOff = false; !this.#closing.signal.aborted; wasCutOff = true) {
      try {
        const events = workloads.watch(this.#closing.signal);
        if (wasCutOff) this.#noteGone(this.#tracked.keys());
        for await (const event of events) this.#heard(event);
      } catch (error) {
        if (this.#closing.signal.aborted) return;
        log.warn("the proofs fell behind what happens to workloads", { error: reasonOf(error) });
      }
      if (this.#closing.signal.aborted) return;
      await new Promise<void>((resolve) => {
        setTimer(resolve, RETRY_MS);
        this.#closing.signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }

  #heard({ id, type }: WorkloadEvent): void {
    const workload = this.#options.workloads.find(id);
    switch (type) {
      case "spawned":
      case "started":
        if (workload !== undefined) {
          void this.#note({ id, kind: "start", workload, facts: this.#factsOf(workload) });
        }
        return;
      case "exited":
        if (workload === undefined) return;
        return void this.#note({
          id,
          kind: "exit",
          workload,
          facts: this.#factsOf(workload),
          endedAtMs: workload.container?.exitedAtMs,
          exitCode: workload.record.exitCode,
        });
      case "stopped":
        return void this.#note({ id, kind: "stop" });
    }
  }

  #factsOf({ id, spec, record, container }: Workload): RunFacts {
    return {
      workload: id,
      node: this.#options.identity.nodeId,
      generation: record.generation,
      startedAtMs: record.startedAtMs,
      restarts: record.restarts,
      image: spec.image,
      imageDigest: container?.imageDigest ?? "",
      specHash: hashOf(specObject(spec)),
      hypervisorType: container?.runtime ?? spec.runtime.name,
      milliCpus: spec.milliCpus,
      memoryLimitBytes: spec.memoryBytes,
      pid: container?.pid ?? 0,
    };
  }

  // ---- Proofs.

  /** Makes a proof in its turn; never fails. */
  async #note(occasion: Occasion): Promise<void> {
    const { id, kind } = occasion;
    const tracked = this.#tracked.get(id) ?? {};
    this.#tracked.set(id, tracked);
    try {
      await this.#queue.run(id, async () => {
        using _place = await this.#places.acquire(this.#closing.signal);
        if (isCurrent(occasion)) await this.#prove(tracked, occasion);
      });
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#options.observe?.({ kind: "failed" });
      this.#options.log.warn("cannot make a proof", { id, kind, error: reasonOf(error) });
    } finally {
      if ((kind === "stop" || kind === "gone") && this.#tracked.get(id) === tracked) this.#tracked.delete(id);
    }
  }

  async #prove(tracked: Tracked, occasion: Occasion): Promise<void> {
    const { id, workload, endedAtMs, exitCode } = occasion;
    const { engine, identity, logs, log, monotonicMs, nowMs, observe } = this.#options;
    const beganMs = monotonicMs();
    tracked.log ??= await logs.open(id);
    const { tail } = tracked.log;
    const kind = kindOf(occasion, tail);
    if (kind === undefined) return;
    const facts = occasion.facts ?? tracked.facts ?? (tail && factsOf(tail));
    if (facts === undefined) return; // nothing of it ever ran
    tracked.facts = facts;
    const metrics = kind === "gone" ? undefined : await engine.metrics(id, { signal: this.#closing.signal })
      .catch((error): ContainerMetrics | undefined => {
        log.debug("a workload cannot be measured", { id, kind, error: reasonOf(error) });
        return undefined;
      });
    const measuredMs = monotonicMs();
    const sinceLastMs = tracked.lastMs === undefined ? undefined : measuredMs - tracked.lastMs;
    const body = nextBody(facts, { kind, nowMs: nowMs(), sinceLastMs, endedAtMs, exitCode, metrics }, tail);
    const spec = workload && specObject(workload.spec);
    const entry: ProofEntry = { ...signBody(body, identity), ...(tail === undefined && { spec }) };
    await tracked.log.append(entry, { identity, nowMs: nowMs() });
    tracked.lastMs = measuredMs;
    if (workload !== undefined) {
      workload.proof = proofMessage(entry);
      this.#tell();
    }
    observe?.({ kind: "generated", durationMs: monotonicMs() - beganMs });
  }

  #tell(): void {
    const { onProofs, setTimer } = this.#options;
    if (onProofs === undefined || this.#closing.signal.aborted) return;
    this.#cancelTelling ??= setTimer(() => {
      this.#cancelTelling = undefined;
      onProofs();
    }, TELL_DELAY_MS);
  }

  // ---- Time.

  #arm(): void {
    const { setTimer, intervalMs } = this.#options;
    if (this.#closing.signal.aborted) return;
    this.#cancelTimer = setTimer(() => {
      this.#arm();
      // A pass that takes longer than the interval is not overtaken by the next.
      if (!this.#isTicking) this.#tick();
    }, intervalMs);
  }

  async #tick(): Promise<void> {
    const { workloads, monotonicMs, observe, log } = this.#options;
    this.#isTicking = true;
    const beganMs = monotonicMs();
    try {
      const due = workloads.list().filter(({ phase }) => phase === "running");
      await Promise.all(due.map((workload) => {
        return this.#note({ id: workload.id, kind: "interval", workload, facts: this.#factsOf(workload) });
      }));
      observe?.({ kind: "aggregated", durationMs: monotonicMs() - beganMs });
      await this.#sweep();
    } catch (error) {
      log.warn("a round of proofs broke off", { error: reasonOf(error) });
    } finally {
      this.#isTicking = false;
    }
  }

  async #sweep(): Promise<void> {
    const { workloads, logs, monotonicMs, nowMs, log } = this.#options;
    if (monotonicMs() - this.#sweptMs < SWEEP_INTERVAL_MS) return;
    this.#sweptMs = monotonicMs();
    const live = new Set([...workloads.list().map(({ id }) => id), ...this.#tracked.keys()]);
    const removed = await logs.sweep(live, { nowMs: nowMs() });
    if (removed > 0) log.info("proof logs of stopped workloads have had their time", { removed });
  }
}

/** A measurement for its own sake is no use once the run has ended: its end is proven by itself. */
function isCurrent({ kind, workload, facts }: Occasion): boolean {
  if (kind !== "interval" && kind !== "resume") return true;
  return workload?.phase === "running" && workload.record.generation === facts?.generation;
}

/** What is to be proven; undefined when the log tells it already. */
function kindOf({ kind, facts }: Occasion, tail: ProofTail | undefined): ProofKind | undefined {
  const isOver = tail !== undefined && hasEnded(tail);
  if (kind === "stop" || kind === "gone") return isOver ? undefined : kind;
  const isNewRun = tail === undefined || isOver || tail.body.generation < (facts?.generation ?? 0);
  // The timer may come before what tells of the start.
  if (kind === "interval") return isNewRun ? "start" : kind;
  return kind === "start" && !isNewRun ? undefined : kind;
}

function hasEnded({ body }: ProofTail): boolean {
  return body.kind === "stop" || body.kind === "gone";
}

/** What a run was, by its newest proof. */
function factsOf({ body }: ProofTail): RunFacts {
  return {
    workload: body.workload,
    node: body.node,
    generation: body.generation,
    startedAtMs: body.started_at_ms,
    restarts: body.restarts,
    image: body.image,
    imageDigest: body.image_digest,
    specHash: body.spec_hash,
    hypervisorType: body.hypervisor_type,
    milliCpus: body.milli_cpus,
    memoryLimitBytes: body.memory_limit_bytes,
    pid: 0,
  };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
