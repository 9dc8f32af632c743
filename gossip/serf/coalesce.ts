import type { Timer, TimerHeap } from "../timers.ts";
import type { CoalesceWindow } from "./config.ts";
import type { MemberEvent, SerfEvent, UserEvent } from "./events.ts";
import type { MemberInfo } from "./member.ts";

/** Names of user events, or members, gathered at once; more are delivered with what is there. */
export const MAX_GATHERED = 16_384;

/** Where a coalescer gets its time, and whom it tells. */
export interface CoalescerOptions {
  window: CoalesceWindow;
  timers: TimerHeap;
  nowMs(): number;
  emit(event: SerfEvent): void;
}

/** Gathers for a while: until nothing came for the quiescent time, or the period is over. */
class Window {
  readonly #options: CoalescerOptions;
  readonly #flush: () => void;
  #endMs = 0;
  #timer: Timer | undefined;

  constructor(options: CoalescerOptions, flush: () => void) {
    this.#options = options;
    this.#flush = flush;
  }

  /** Something came. */
  touch(): void {
    const nowMs = this.#options.nowMs();
    const { periodMs, quiescentMs } = this.#options.window;
    if (this.#timer === undefined) this.#endMs = nowMs + periodMs;
    else this.#timer.cancel();
    this.#timer = this.#options.timers.set(Math.min(this.#endMs, nowMs + quiescentMs), () => this.close());
  }

  /** Delivers what was gathered. */
  close(): void {
    if (this.#timer) this.#timer.cancel();
    this.#timer = undefined;
    this.#flush();
  }
}

/** Of each member only its latest event is delivered, together with those of others. */
export class MemberCoalescer {
  readonly #latest = new Map<string, { kind: MemberEvent["kind"]; member: MemberInfo }>();
  readonly #delivered = new Map<string, MemberEvent["kind"]>();
  readonly #window: Window;
  readonly #options: CoalescerOptions;

  constructor(options: CoalescerOptions) {
    this.#options = options;
    this.#window = new Window(options, () => this.#flush());
  }

  /** Takes an event. */
  take(event: MemberEvent): void {
    for (const member of event.members) this.#latest.set(member.name, { kind: event.kind, member });
    if (this.#latest.size >= MAX_GATHERED) this.#window.close();
    else this.#window.touch();
  }

  #flush(): void {
    const byKind = new Map<MemberEvent["kind"], MemberInfo[]>();
    for (const [name, { kind, member }] of this.#latest) {
      // A member that came back to what was last told is no news, unless its tags may have changed.
      if (this.#delivered.get(name) === kind && kind !== "member-update") continue;
      if (kind === "member-reap") this.#delivered.delete(name);
      else this.#delivered.set(name, kind);
      const members = byKind.get(kind);
      if (members === undefined) byKind.set(kind, [member]);
      else members.push(member);
    }
    this.#latest.clear();
    for (const [kind, members] of byKind) this.#options.emit({ kind, members });
  }
}

/** Of each name only the events of the highest Lamport time are delivered. */
export class UserEventCoalescer {
  readonly #latest = new Map<string, UserEvent[]>();
  readonly #window: Window;
  readonly #options: CoalescerOptions;

  constructor(options: CoalescerOptions) {
    this.#options = options;
    this.#window = new Window(options, () => this.#flush());
  }

  /** Takes an event that may be coalesced. */
  take(event: UserEvent): void {
    const latest = this.#latest.get(event.name);
    if (latest === undefined || event.ltime > latest[0].ltime) this.#latest.set(event.name, [event]);
    else if (event.ltime === latest[0].ltime) latest.push(event);
    if (this.#latest.size >= MAX_GATHERED) this.#window.close();
    else this.#window.touch();
  }

  #flush(): void {
    const events = [...this.#latest.values()].flat();
    this.#latest.clear();
    for (const event of events) this.#options.emit(event);
  }
}
