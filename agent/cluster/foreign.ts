import type { CoreContext } from "./context.ts";
import { decodeFragment, encodeFragments, FragmentAssembler } from "./go_fragments.ts";
import { FRAGMENTS_MS } from "./limits.ts";
import type { NodeView } from "./state_table.ts";
import { GOSSIP } from "./tags.ts";

/** How often unfinished broadcasts are looked through, milliseconds. */
const SWEEP_MS = 30_000;

/**
 * Exchange of states with members that speak the original's protocol. They broadcast only when something changes, so a
 * state of theirs holds for as long as membership takes them for alive.
 */
export class Foreign {
  readonly #context: CoreContext;
  readonly #selfName: string;
  readonly #assembler = new FragmentAssembler();
  #dueMs = 0;
  #sweepMs = 0;
  /** Fragments that could not be taken. */
  refused = 0;

  constructor(context: CoreContext, selfName: string) {
    this.#context = context;
    this.#selfName = selfName;
  }

  /** Takes a fragment. */
  receive(payload: Uint8Array): void {
    const context = this.#context;
    const { nowMs, parts: { table } } = context;
    const fragment = decodeFragment(payload);
    if (fragment instanceof Error) return void this.refused++;
    if (fragment.name === this.#selfName) return;
    const view = table.get(fragment.name);
    // Our own kind broadcasts this too, for the others; it says nothing new to us.
    if (view?.kind === "hypercore" || this.#isOurs(fragment.name)) return;
    if (view === undefined) return void this.refused++;
    const state = this.#assembler.take(fragment, nowMs);
    if (state === undefined) return;
    const isFirst = view.state === undefined;
    const outcome = state instanceof Error ? undefined : table.applyForeign(view.id, state);
    if (outcome?.kind !== "applied") return void this.refused++;
    context.copied(view, outcome.ids, isFirst);
    view.heardMs = nowMs;
  }

  /** A member is gone. */
  forget(view: NodeView): void {
    this.#assembler.forget(view.member.name);
  }

  /** Broadcasts this node's state when it is time and somebody is there to hear it. */
  tick(): void {
    const { nowMs, parts: { own, random } } = this.#context;
    if (nowMs >= this.#sweepMs) {
      this.#sweepMs = nowMs + SWEEP_MS;
      this.#assembler.sweep(nowMs);
    }
    if (nowMs < this.#dueMs) return;
    this.#dueMs = nowMs + FRAGMENTS_MS;
    if (!this.#hasListener()) return;
    const workloads = Array.from(own.workloads.values(), ({ state }) => state)
      .filter(({ status }) => status === "running" || status === "");
    const broadcast = {
      name: this.#selfName,
      uuid: uuid(random.bytes(16)),
      workloads,
      beacon: own.header.beacon,
    };
    for (const payload of encodeFragments(broadcast)) {
      this.#context.emit({ kind: "event", name: GOSSIP.stateBroadcast, payload });
    }
  }

  nextMs(): number {
    return Math.min(this.#sweepMs, this.#dueMs);
  }

  #hasListener(): boolean {
    for (const { kind, life } of this.#context.parts.table.nodes.values()) {
      if (kind === "foreign" && life === "live") return true;
    }
    return false;
  }

  #isOurs(name: string): boolean {
    for (const { kind, member } of this.#context.parts.table.nodes.values()) {
      if (kind === "hypercore" && member.name === name) return true;
    }
    return false;
  }
}

/** Version 4 of RFC 9562. */
function uuid(bytes: Uint8Array): string {
  bytes[6] = bytes[6] & 0x0f | 0x40;
  bytes[8] = bytes[8] & 0x3f | 0x80;
  const hex = bytes.toHex();
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
