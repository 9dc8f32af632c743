import { encodePushPull, type PushPull } from "../codec/push_pull.ts";
import type { Endpoint } from "../endpoint.ts";
import type { Context } from "./context.ts";
import type { DialResult, Streams } from "./streams.ts";

/** Keys of the ring, and removed ones, that a join tries where the peer does not have the primary. */
const MAX_KEYS_TRIED = 4;

/** One way to make contact: with a key other than the primary, or knocking with a removed one. */
interface Attempt {
  key?: Uint8Array;
  /** Whether nothing but this node's name is said: whoever has a removed key could read it. */
  knock?: boolean;
}

/** How a merge ended: why it was refused, or that it brought a key ring with which to try again. */
export interface MergeResult {
  error?: string;
  renewed?: boolean;
}

/** Takes over a peer's state; `knocked`: whether it came under a removed key. `answered`: whether this node asked for it. */
export type Merge = (remote: PushPull, options: { knocked: boolean; answered: boolean }) => MergeResult;

/** Push/pulls that this node begins. A join gets past a rotation of keys that one side has missed. */
export class Exchanges {
  readonly #ctx: Context;
  readonly #streams: Streams;
  readonly #local: (join: boolean) => PushPull;
  readonly #merge: Merge;

  constructor(ctx: Context, parts: {
    streams: Streams;
    /** This node's whole state. */
    local: (join: boolean) => PushPull;
    /** Takes over a peer's state. */
    merge: Merge;
  }) {
    this.#ctx = ctx;
    this.#streams = parts.streams;
    this.#local = parts.local;
    this.#merge = parts.merge;
  }

  /** Exchanges whole states with one node; `done` gets the reason of a failure. */
  begin(to: Endpoint, options: { join: boolean }, done: (error: string | undefined) => void): void {
    this.#try(to, { ...options, attempts: this.#attempts(options.join), mayRenew: true }, done);
  }

  #attempts(join: boolean): Attempt[] {
    const { keyring } = this.#ctx.streams;
    if (!join || keyring === undefined) return [{}];
    return [
      {},
      ...keyring.keys().slice(1, MAX_KEYS_TRIED).map((key) => ({ key })),
      ...keyring.retired().slice(0, MAX_KEYS_TRIED).map((key) => ({ key, knock: true })),
    ];
  }

  #try(
    to: Endpoint,
    options: { join: boolean; attempts: Attempt[]; mayRenew: boolean },
    done: (error: string | undefined) => void,
  ): void {
    const { join, mayRenew } = options;
    const [{ key, knock }, ...attempts] = options.attempts;
    const { config, delegate } = this.#ctx;
    const state = knock ? { join: false, nodes: [], userState: delegate.knock() } : this.#local(join);
    const dial = { reply: true, timeoutMs: config.tcpTimeoutMs, key };
    this.#streams.dial(to, encodePushPull(state), dial, (result) => {
      if ("error" in result) {
        if (result.refused && attempts.length > 0) return this.#try(to, { ...options, attempts }, done);
        return done(result.error);
      }
      const { error, renewed } = this.#take(result, join);
      if (!renewed) return done(error);
      if (mayRenew) return this.#try(to, { join, attempts: [{}], mayRenew: false }, done);
      done("the key ring was renewed twice");
    });
  }

  #take(result: Exclude<DialResult, { error: string }>, join: boolean): MergeResult {
    const { message } = result;
    if (message?.kind !== "pushPull") return { error: "the answer is no push/pull" };
    if (!message.retired) {
      return this.#merge({ ...message.message, join }, { knocked: false, answered: true });
    }
    // Whoever has a removed key could have sent it: only a ring that a member sealed for this node counts.
    const state = { join: false, nodes: [], userState: message.message.userState };
    return this.#merge(state, { knocked: true, answered: true });
  }
}
