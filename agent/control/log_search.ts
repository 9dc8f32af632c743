import { RuntimeError } from "../../runtime/errors.ts";
import type { ContainerEngine } from "../../runtime/engine.ts";
import type { Query } from "../../gossip/mod.ts";
import { GOSSIP } from "../cluster/tags.ts";
import type { Membership } from "../membership/membership.ts";
import { isWorkloadId } from "../workloads/parse_spawn.ts";
import type { ClusterView } from "./cluster_view.ts";
import type { Location } from "./forwarding.ts";

/** Wait for a node that still has the log of a workload that is gone, milliseconds. */
export const LOG_SEARCH_MS = 2_000;

/** What a {@linkcode LogSearch} works with. */
export interface LogSearchParts {
  view: ClusterView;
  membership: Membership;
  engine: Pick<ContainerEngine, "hasLog">;
}

/** Finds logs: where the workload runs, and for a while after it has gone where it ran last. */
export class LogSearch {
  readonly #parts: LogSearchParts;

  constructor(parts: LogSearchParts) {
    this.#parts = parts;
  }

  /** Throws `not-found` where no node has it. */
  async locate(idOrName: string): Promise<Location> {
    const { view, engine } = this.#parts;
    try {
      const { isSelf, nodeId, workload } = view.find(idOrName);
      return { id: workload.id, nodeId: isSelf ? undefined : nodeId };
    } catch (error) {
      const isUnknown = error instanceof RuntimeError && error.code === "not-found";
      if (!isUnknown || !isWorkloadId(idOrName)) throw error;
      if (await engine.hasLog(idOrName)) return { id: idOrName };
      const nodeId = await this.#ask(idOrName);
      if (nodeId === undefined) throw error;
      return { id: idOrName, nodeId };
    }
  }

  /** Answers another node's question, when the log is here. */
  async answer(query: Query): Promise<void> {
    const { membership, engine } = this.#parts;
    const id = new TextDecoder().decode(query.payload);
    if (isWorkloadId(id) && await engine.hasLog(id)) membership.answer(query, query.payload);
  }

  async #ask(id: string): Promise<string | undefined> {
    const { membership } = this.#parts;
    if (membership.serf.aliveCount < 2) return undefined;
    const found = new AbortController();
    let nodeId: string | undefined;
    await membership.ask(GOSSIP.findLog, {
      payload: id,
      timeoutMs: LOG_SEARCH_MS,
      signal: found.signal,
      onResponse(from) {
        nodeId ??= membership.named(from)?.id;
        queueMicrotask(() => found.abort());
      },
    });
    return nodeId;
  }
}
