import { create } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { FetchStateRequestSchema, type PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import type { Log } from "../../runtime/log.ts";
import type { ClusterCore } from "../cluster/core.ts";
import type { ClusterEffect } from "../cluster/ports.ts";
import type { Membership } from "../membership/membership.ts";
import type { WorkloadManager } from "../workloads/manager.ts";
import type { ClusterEvents } from "./cluster_events.ts";
import type { CoreDriver } from "./core_driver.ts";
import type { DurableFacts } from "./durable.ts";
import { PEER_CALL_MS } from "./forwarding.ts";
import type { Placer } from "./placer.ts";

/** Longest time for all states of a large cluster, milliseconds. */
const FETCH_ALL_MS = 60_000;

/** How long a call's answer waits for the state of the node on which it did something, milliseconds. */
const CATCH_UP_MS = 2_000;

/** What the effects of a core are done with. */
export interface EffectParts {
  core: ClusterCore;
  driver: () => CoreDriver;
  membership: Membership;
  manager: WorkloadManager;
  placer: () => Placer;
  peer(nodeId: string): Client<typeof PeerService>;
  durable: DurableFacts;
  events: ClusterEvents;
  nodeName(nodeId: string): string;
  /** Told of each state that was not believed. */
  onRefused?: (effect: ClusterEffect & { kind: "refused" }) => void;
  signal: AbortSignal;
  log: Log;
}

/** Does what the core wants done, and reports back. Nothing here decides. */
export class Effects {
  readonly #parts: EffectParts;

  constructor(parts: EffectParts) {
    this.#parts = parts;
  }

  perform(effect: ClusterEffect): void {
    const { membership, manager, durable, core, events, nodeName, log } = this.#parts;
    switch (effect.kind) {
      case "event":
        try {
          return membership.broadcast(effect.name, effect.payload);
        } catch (error) {
          return log.error("cannot tell the cluster", { event: effect.name, error: reasonOf(error) });
        }
      case "fetch":
        return this.#background(() => this.#fetch(effect));
      case "fetch-all":
        return this.#background(() => this.#fetchAll(effect));
      case "end-duplicate":
        log.info("ending a copy that runs elsewhere", { id: effect.id, winner: nodeName(effect.winner) });
        return this.#background(() => this.#end(effect));
      case "end-stopped":
        log.info("ending a workload that was stopped for good", { id: effect.id });
        return this.#background(() => this.#end(effect));
      case "reschedule":
        return this.#background(() => this.#reschedule(effect));
      case "entrust":
        for (const nodeId of effect.to) this.#background(() => this.#entrust(effect.id, nodeId));
        return;
      case "save-tombstones":
        return durable.saveTombstones(() => core.tombstones());
      case "routes":
        return this.#background(() => manager.syncRoutes());
      case "workload":
        return events.emitChange(nodeName(effect.nodeId), effect.id, effect.change);
      case "refused":
        return this.#parts.onRefused?.(effect);
      case "note":
        log.info("cluster", { node: nodeName(effect.nodeId), note: effect.text });
        return events.emit(nodeName(effect.nodeId), { case: "note", value: effect.text });
    }
  }

  /**
   * Learns the present state of another node, on which something was just done for a caller: what he did he shall find done
   * when he looks here. Where it does not come in time, gossip tells of it.
   */
  async catchUp(nodeId: string): Promise<void> {
    const { core, peer, signal } = this.#parts;
    const { incarnation, version } = core.root(nodeId) ?? {};
    const request = create(FetchStateRequestSchema, { incarnation, version });
    const answer = await peer(nodeId).fetchState(request, { signal, timeoutMs: CATCH_UP_MS }).catch(() => {});
    if (answer !== undefined) this.#report((nowMs) => core.fetched(nowMs, nodeId, answer));
  }

  async #fetch({ nodeId, since }: ClusterEffect & { kind: "fetch" }): Promise<void> {
    const { core, peer, signal } = this.#parts;
    const request = create(FetchStateRequestSchema, since ?? {});
    const answer = await peer(nodeId).fetchState(request, { signal, timeoutMs: PEER_CALL_MS }).catch(asError);
    this.#report((nowMs) => core.fetched(nowMs, nodeId, answer));
  }

  async #fetchAll({ nodeId }: ClusterEffect & { kind: "fetch-all" }): Promise<void> {
    const { core, peer, signal } = this.#parts;
    try {
      for await (const update of peer(nodeId).fetchStates({}, { signal, timeoutMs: FETCH_ALL_MS })) {
        this.#report((nowMs) => core.learned(nowMs, update));
      }
      this.#report((nowMs) => core.learnedAll(nowMs, nodeId));
    } catch (error) {
      this.#report((nowMs) => core.learnedAll(nowMs, nodeId, asError(error)));
    }
  }

  /** Only the copy that was meant: one started since is another's business. */
  async #end({ id, generation }: { id: string; generation: bigint }): Promise<void> {
    const { manager } = this.#parts;
    const workload = manager.list().find((each) => each.id === id);
    if (workload !== undefined && BigInt(workload.record.generation) <= generation) await manager.stop(id);
  }

  async #reschedule(effect: ClusterEffect & { kind: "reschedule" }): Promise<void> {
    const { core, placer, signal, log, events, nodeName } = this.#parts;
    const { id, generation, from, request, createdAtMs, restarts } = effect;
    let error: Error | undefined;
    try {
      // Its own node is gone: a request for that node alone can be met by none.
      const { response } = await placer().place(request, {
        id,
        generation: Number(generation),
        createdAtMs: Number(createdAtMs) || undefined,
        restarts,
        exclude: new Set([from]),
        signal,
      });
      const text = `workload ${id} of node "${nodeName(from)}" runs on node "${response.node}" now`;
      log.info("rescheduled", { id, from: nodeName(from), to: response.node });
      events.emit(response.node, { case: "note", value: text });
    } catch (cause) {
      error = new Error(
        `Cannot reschedule workload "${id}" of node "${nodeName(from)}": ${reasonOf(cause)}`,
        { cause },
      );
    }
    this.#report((nowMs) => core.rescheduled(nowMs, { id, generation, error }));
  }

  async #entrust(id: string, nodeId: string): Promise<void> {
    const { core, manager, membership, peer, signal } = this.#parts;
    const request = manager.list().find((each) => each.id === id)?.record.request;
    if (request === undefined) return;
    const ownerNodeId = membership.self.id;
    const error = await peer(nodeId).entrust({ id, ownerNodeId, request }, {
      signal,
      timeoutMs: PEER_CALL_MS,
    })
      .then(() => undefined, asError);
    this.#report((nowMs) => core.entrustDone(nowMs, { id, nodeId, error }));
  }

  #report(give: (nowMs: number) => ClusterEffect[]): void {
    this.#parts.driver().input(give);
  }

  #background(work: () => Promise<void>): void {
    work().catch((error) => {
      if (!this.#parts.signal.aborted) {
        this.#parts.log.warn("cluster work failed", { error: reasonOf(error) });
      }
    });
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
