import type { Random } from "../../gossip/mod.ts";

/** Time between two health checks of a registry that knows this node, milliseconds. */
export const HEALTH_MS = 30_000;
/** A registration is repeated after this time, milliseconds, so that a registry that forgot it has it again. */
export const REGISTER_MS = 300_000;
/** A beacon that changed is registered anew this long after the registration before, milliseconds. */
export const CHANGED_MS = 10_000;
/** Pauses after failures, milliseconds: the first, doubling to the last; each shortened by up to half at random. */
export const REGISTRY_RETRY_MS = { first: 1_000, last: 300_000 } as const;

/** What is to be done with a registry. */
export type RegistryTask = "health" | "register";

/** How it stands with a registry. */
export type RegistryState =
  | { kind: "connected" }
  /** Not (yet) known there: the node goes on alone. */
  | { kind: "disconnected"; reason: string };

/** When to ask a registry whether it is there, and when to register with it. A state machine; `nowMs` of a steady clock. */
export class RegistryLink {
  readonly #random: Random;
  #state: RegistryState = { kind: "disconnected", reason: "it was not asked yet" };
  #dueMs = 0;
  #registeredMs = -Infinity;
  #failures = 0;
  #isChanged = false;

  constructor(options: { random: Random }) {
    this.#random = options.random;
  }

  get state(): RegistryState {
    return this.#state;
  }

  /** What is due now: of a registry that does not know this node, first whether it is there. */
  due(nowMs: number): RegistryTask | undefined {
    if (this.#state.kind === "disconnected") return nowMs >= this.#dueMs ? "health" : undefined;
    if (nowMs >= this.#registerMs) return "register";
    return nowMs >= this.#dueMs ? "health" : undefined;
  }

  /** When something is due. */
  get nextMs(): number {
    return this.#state.kind === "disconnected" ? this.#dueMs : Math.min(this.#dueMs, this.#registerMs);
  }

  /** The beacon says something else now. */
  changed(): void {
    this.#isChanged = true;
  }

  /** It is there. Gives what follows: the registration, unless it knows this node. */
  healthy(nowMs: number): RegistryTask | undefined {
    this.#dueMs = nowMs + HEALTH_MS;
    return this.#state.kind === "disconnected" ? "register" : undefined;
  }

  /** It knows this node. */
  registered(nowMs: number): void {
    this.#state = { kind: "connected" };
    this.#failures = 0;
    this.#isChanged = false;
    this.#registeredMs = nowMs;
    this.#dueMs = nowMs + HEALTH_MS;
  }

  /** It did not answer, or refused. */
  failed(reason: string, nowMs: number): void {
    this.#state = { kind: "disconnected", reason };
    const { first, last } = REGISTRY_RETRY_MS;
    const pauseMs = Math.min(last, first * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    this.#dueMs = nowMs + pauseMs * (1 - this.#random.float() / 2);
  }

  get #registerMs(): number {
    return this.#registeredMs + (this.#isChanged ? CHANGED_MS : REGISTER_MS);
  }
}
