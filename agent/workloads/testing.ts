import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type VmSpawnRequest,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { MemoryEngine } from "../../runtime/testing/memory_engine.ts";
import type { PortFailure, Route } from "../proxy/mod.ts";
import type { WorkloadManagerOptions } from "./context.ts";
import { WorkloadManager } from "./manager.ts";

/** A clock that stands still until it is told to go on. */
export class FakeClock {
  nowMs = 1_000_000;
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();

  readonly setTimer = (callback: () => void, delayMs: number): () => void => {
    const timer = { atMs: this.nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  };

  /** Delays of what waits, in milliseconds from now. */
  get pending(): number[] {
    return [...this.#timers].map((timer) => timer.atMs - this.nowMs).sort((a, b) => a - b);
  }

  /** Lets time pass and calls what is due, in order. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.atMs <= endMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.nowMs = Math.max(this.nowMs, due.atMs);
      due.callback();
    }
    this.nowMs = endMs;
  }
}

/** A proxy that only remembers. */
export class FakeProxy {
  routes: readonly Route[] = [];
  readonly reserved: number[] = [];
  readonly takenPorts = new Set<number>();
  failures: PortFailure[] = [];

  apply(routes: readonly Route[]): Promise<PortFailure[]> {
    this.routes = routes;
    return Promise.resolve(this.failures);
  }

  reserve(hostPort: number): Promise<{ release(): Promise<void> }> {
    if (this.takenPorts.has(hostPort)) {
      return Promise.reject(new Error(`Cannot open host port "${hostPort}": address in use`));
    }
    this.reserved.push(hostPort);
    return Promise.resolve({
      release: () => {
        this.reserved.splice(this.reserved.indexOf(hostPort), 1);
        return Promise.resolve();
      },
    });
  }

  setHop(): Promise<void> {
    return Promise.resolve();
  }

  stats() {
    const duration = { bounds: [1], counts: [0], count: 0, sumSeconds: 0 };
    const hops = { sent: 0, received: 0, refused: 0 };
    return Promise.resolve({
      requests: { "2xx": 0 },
      bytesIn: 0,
      bytesOut: 0,
      openConnections: 0,
      refusedConnections: 0,
      cutConnections: 0,
      hops,
      duration,
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** A request for a small container. */
export function request(fields: MessageInitShape<typeof VmSpawnRequestSchema> = {}): VmSpawnRequest {
  return create(VmSpawnRequestSchema, { imageRef: "web:1", ports: { 8080: 80 }, ...fields });
}

/** A manager on fakes; parts that are given outlive it, as containerd outlives an agent. */
export async function startManager(
  parts: {
    engine?: MemoryEngine;
    proxy?: FakeProxy;
    clock?: FakeClock;
    ids?: string[];
    vcpus?: number;
    /** Called before what runs is adopted. */
    beforeStart?: (manager: WorkloadManager) => void;
    policies?: WorkloadManagerOptions["policies"];
  } = {},
) {
  const clock = parts.clock ?? new FakeClock();
  const engine = parts.engine ?? new MemoryEngine({ nowMs: () => clock.nowMs });
  const proxy = parts.proxy ?? new FakeProxy();
  let next = 1;
  const manager = new WorkloadManager({
    engine,
    proxy,
    log: silentLog,
    node: { nodeName: "n1", baseUrl: "example.com", tls: false, reservedPorts: new Set([8000, 8001]) },
    capacity: { milliCpus: (parts.vcpus ?? 8) * 1000, memoryBytes: 8 * 2 ** 30 },
    nowMs: () => clock.nowMs,
    setTimer: clock.setTimer,
    newId: () => parts.ids?.shift() ?? (next++).toString(16).padStart(12, "0"),
    drainMs: 0,
    policies: parts.policies,
  });
  parts.beforeStart?.(manager);
  await manager.start(new AbortController().signal);
  return { manager, engine, proxy, clock };
}

/** Lets everything that can run without time passing run. */
export async function settle(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** Lets everything run whose time has come, drains included. */
export async function drain<T>(clock: FakeClock, work: Promise<T>): Promise<T> {
  let isDone = false;
  const watched = work.finally(() => isDone = true);
  watched.catch(() => {}); // the caller awaits it below
  for (let i = 0; i < 50 && !isDone; i++) {
    await settle();
    clock.advance(0);
  }
  return await watched;
}
