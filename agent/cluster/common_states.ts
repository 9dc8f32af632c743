import { fromBinary } from "@bufbuild/protobuf";
import {
  type Heartbeat,
  HeartbeatSchema,
  type StateUpdate,
  StateUpdateSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import type { NextState } from "./next_state.ts";
import type { StateVersion } from "./ports.ts";

/** A state that an update builds on, as far as that decides what it leads to: the hash commits to all of its content. */
type Base = (StateVersion & { hash: bigint }) | undefined;

/**
 * What the cores of one process have in common, where there are many of them, as in a simulated cluster: each message is
 * decoded once, and a state that all come to alike is put together and kept once. Nothing of it is ever changed.
 */
export class CommonStates {
  readonly #updates = new WeakMap<Uint8Array, StateUpdate>();
  readonly #heartbeats = new WeakMap<Uint8Array, Heartbeat>();
  readonly #next = new WeakMap<StateUpdate, { base: Base; next: NextState | string }>();
  readonly #passedOn = new WeakMap<object, StateUpdate>();

  /** An event's update. Throws where it is none. */
  update(payload: Uint8Array): StateUpdate {
    return remembered(this.#updates, payload, () => fromBinary(StateUpdateSchema, payload));
  }

  /** An event's heartbeat. Throws where it is none. */
  heartbeat(payload: Uint8Array): Heartbeat {
    return remembered(this.#heartbeats, payload, () => fromBinary(HeartbeatSchema, payload));
  }

  /** What an update leads to from `base`; `find` finds out. */
  next(update: StateUpdate, base: Base, find: () => NextState | string): NextState | string {
    const known = this.#next.get(update);
    if (known !== undefined && isSame(known.base, base)) return known.next;
    const next = find();
    const at = base && { incarnation: base.incarnation, version: base.version, hash: base.hash };
    this.#next.set(update, { base: at, next });
    return next;
  }

  /** A known state as it is passed on; `make` makes it. */
  passedOn(state: object, make: () => StateUpdate): StateUpdate {
    return remembered(this.#passedOn, state, make);
  }
}

function remembered<K extends object, V>(known: WeakMap<K, V>, key: K, make: () => V): V {
  let value = known.get(key);
  if (value === undefined) known.set(key, value = make());
  return value;
}

function isSame(a: Base, b: Base): boolean {
  return a?.incarnation === b?.incarnation && a?.version === b?.version && a?.hash === b?.hash;
}
