import { encodeLeave, type LeaveIntent } from "../codec/serf_messages.ts";
import type { Memberlist } from "../memberlist/memberlist.ts";
import { asUser, type Broadcasts } from "./broadcasts.ts";
import type { SerfConfig } from "./config.ts";
import type { Members } from "./members.ts";

/** Says goodbye, for this node or for another, in steps that each end in time. */
export class Leaver {
  readonly #config: SerfConfig;
  readonly #memberlist: Memberlist;
  readonly #members: Members;
  readonly #broadcasts: Broadcasts;

  constructor(
    parts: { config: SerfConfig; memberlist: Memberlist; members: Members; broadcasts: Broadcasts },
  ) {
    this.#config = parts.config;
    this.#memberlist = parts.memberlist;
    this.#members = parts.members;
    this.#broadcasts = parts.broadcasts;
  }

  /** Leaves: the intent first, or others would see this node fail; then memberlist's word; then a little patience. */
  leave(done: () => void): void {
    const { timers } = this.#memberlist;
    this.force({ node: this.#memberlist.self.name, prune: false }, () => {
      this.#onceWithin(this.#spreadMs(), (next) => this.#memberlist.leave(next), () => {
        timers.set(this.#memberlist.nowMs + this.#config.leavePropagateDelayMs, done);
      });
    });
  }

  /** Says that a member leaves; `done` follows once enough members were told. */
  force(options: { node: string; prune: boolean }, done: () => void): void {
    const intent: LeaveIntent = { ...options, ltime: this.#members.clock.tick() };
    this.#members.leaveIntent(intent, this.#memberlist.nowMs);
    if (this.#members.aliveCount <= 1 && this.#memberlist.pick(1).length === 0) return done();
    this.#onceWithin(
      this.#spreadMs(),
      (next) => this.#broadcasts.intent(asUser(encodeLeave(intent)), next),
      done,
    );
  }

  /** News that goes out at once need not be waited for as long as a gossip tick takes to finish it. */
  #spreadMs(): number {
    const { eager, probeTimeoutMs } = this.#memberlist.config;
    const { broadcastTimeoutMs } = this.#config;
    return eager ? Math.min(broadcastTimeoutMs, 2 * probeTimeoutMs) : broadcastTimeoutMs;
  }

  /** Runs `begin`; `done` follows when it says so or after `timeoutMs`, once. */
  #onceWithin(timeoutMs: number, begin: (next: () => void) => void, done: () => void): void {
    let over = false;
    const finish = () => {
      if (over) return;
      over = true;
      timer.cancel();
      done();
    };
    const timer = this.#memberlist.timers.set(this.#memberlist.nowMs + timeoutMs, finish);
    begin(finish);
  }
}
