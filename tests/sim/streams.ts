import { DecodeError } from "../../gossip/codec/error.ts";
import type { Effect } from "../../gossip/memberlist/context.ts";
import type { DialResult } from "../../gossip/memberlist/streams.ts";
import type { SerfCore } from "../../gossip/serf/serf.ts";
import type { TimerHeap } from "../../gossip/timers.ts";
import type { Network } from "./network.ts";
import type { SimNode } from "./node.ts";

/** What {@linkcode SimStreams} need of the world. */
export interface StreamSurroundings {
  network: Network;
  timers: TimerHeap;
  nowMs(): number;
  /** Gives a core an input now, or once its process is no longer stalled; not where it has ended. */
  input(node: SimNode, core: SerfCore, input: () => void): void;
}

/** The streams of a simulated network. */
export class SimStreams {
  readonly #world: StreamSurroundings;
  readonly #answers = new Map<string, (bytes: Uint8Array | undefined) => void>();
  #lastId = 0;

  constructor(world: StreamSurroundings) {
    this.#world = world;
  }

  /** A core opens a stream to whoever is at the address, if anyone is. */
  dial(from: SimNode, to: SimNode | undefined, effect: Effect & { kind: "dial" }): void {
    const { core } = from;
    const { memberlist } = core;
    const { network, input, nowMs } = this.#world;
    const finish = this.#once<DialResult>(effect.timeoutMs, (result) => {
      input(from, core, () => memberlist.dialed(nowMs(), effect.id, result));
    }, { error: "no answer in time" });
    this.#connect(from, to, (error) => {
      if (error !== undefined || to === undefined) return finish({ error: error ?? "nobody is there" });
      if (!effect.reply) finish({ message: undefined });
      const target = to.core;
      network.streamBytes += effect.request.length;
      input(to, target, () => {
        const id = ++this.#lastId;
        this.#answers.set(`${to.index}/${id}`, (bytes) => {
          if (bytes === undefined) return finish({ error: "closed" });
          network.streamBytes += bytes.length;
          this.#later(network.stream(), () => {
            if (!network.isBlocked(to.index, from.index)) finish(readAnswer(core, bytes));
          });
        });
        const request = target.memberlist.streamCodec.reader({ accepted: true }).push(effect.request);
        if (request !== undefined) target.memberlist.receiveStream(nowMs(), id, request);
      });
    });
  }

  /** A core answers a stream that it accepted. */
  answer(node: SimNode, effect: Effect & { kind: "answer" }): void {
    const id = `${node.index}/${effect.id}`;
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    answer?.(effect.bytes);
  }

  /** Tells once the request is there, or that it was refused; nothing where the network swallows it. */
  #connect(
    from: SimNode,
    to: SimNode | undefined,
    done: (error: string | undefined) => void,
  ): void {
    const { network } = this.#world;
    const blocked = () =>
      to === undefined || network.isBlocked(from.index, to.index) || network.isBlocked(to.index, from.index);
    if (to === undefined || blocked()) return;
    const handshakeMs = network.stream() + network.stream();
    if (!to.up) return this.#later(handshakeMs, () => done("connection refused"));
    this.#later(handshakeMs + network.stream(), () => {
      if (!blocked()) done(undefined);
    });
  }

  #later(delayMs: number, run: () => void): void {
    this.#world.timers.set(this.#world.nowMs() + delayMs, run);
  }

  /** Passes on the first result, or `late` after `timeoutMs`. */
  #once<Result>(timeoutMs: number, done: (result: Result) => void, late: Result): (result: Result) => void {
    let isOver = false;
    const finish = (result: Result) => {
      if (isOver) return;
      isOver = true;
      timeout.cancel();
      done(result);
    };
    const timeout = this.#world.timers.set(this.#world.nowMs() + timeoutMs, () => finish(late));
    return finish;
  }
}

function readAnswer(core: SerfCore, bytes: Uint8Array): DialResult {
  try {
    const message = core.memberlist.streamCodec.reader({ accepted: false }).push(bytes);
    return message ? { message } : { error: "it ended early" };
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error;
    return { error: error.message };
  }
}
