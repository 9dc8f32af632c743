import { DecodeError } from "../codec/error.ts";
import type { Endpoint } from "../endpoint.ts";
import type { Log } from "../log.ts";
import type { Effect } from "../memberlist/context.ts";
import type { SerfEvent } from "../serf/events.ts";
import type { SerfCore } from "../serf/serf.ts";
import {
  BudgetError,
  ByteBudget,
  closeOnAbort,
  exchange,
  MAX_SERVED_STREAMS,
  MAX_SERVED_STREAMS_PER_ADDRESS,
  MAX_SERVED_STREAMS_PER_NETWORK,
  readMessage,
  writeAll,
} from "./stream_driver.ts";
import { Places } from "./places.ts";
import type { ByteStream, Clock, Transport } from "./transport.ts";

/** Longest sleep; a timer beyond it is armed anew. */
const MAX_SLEEP_MS = 3_600_000;

/** Runs a Serf core: moves packets and streams, wakes it when it wants, hands its events on. Decides nothing. */
export class Driver implements AsyncDisposable {
  readonly #core: SerfCore;
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onEvent: (event: SerfEvent) => void;
  readonly #stop = new AbortController();
  readonly #tasks = new Set<Promise<void>>();
  readonly #answers = new Map<number, (bytes: Uint8Array | undefined) => void>();
  readonly #budget: ByteBudget;
  readonly #places = new Places({
    all: MAX_SERVED_STREAMS,
    perAddress: MAX_SERVED_STREAMS_PER_ADDRESS,
    perNetwork: MAX_SERVED_STREAMS_PER_NETWORK,
  });
  #nextStream = 1;
  #wakeMs = Infinity;
  #cancelWake: (() => void) | undefined;
  #draining = false;

  constructor(
    options: {
      core: SerfCore;
      transport: Transport;
      clock: Clock;
      log: Log;
      onEvent: (event: SerfEvent) => void;
      /** Bytes of unfinished messages of all served streams. */
      receivingBytes?: number;
    },
  ) {
    this.#budget = new ByteBudget(options.receivingBytes);
    this.#core = options.core;
    this.#transport = options.transport;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#onEvent = options.onEvent;
  }

  /** Begins to receive and starts the core. */
  start(): void {
    this.#transport.start({
      packet: (from, packet) => this.#packet(from, packet),
      stream: (stream, address) => this.#serve(stream, address),
    });
    this.run((nowMs) => this.#core.start(nowMs));
  }

  /** Gives the core an input and does what it wants done. */
  run<T>(input: (nowMs: number) => T): T {
    try {
      return input(this.#clock.now());
    } finally {
      this.#drain();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#cancelWake?.();
    for (const answer of this.#answers.values()) answer(undefined);
    await this.#transport[Symbol.asyncDispose]();
    await Promise.all(this.#tasks);
    this.#core.queries.closeAll();
  }

  #packet(from: Endpoint, packet: Uint8Array): void {
    if (this.#stop.signal.aborted) return;
    const error = this.run((nowMs) => this.#core.memberlist.receivePacket(nowMs, from, packet));
    if (error !== undefined) this.#log.debug("bad gossip packet", { from: `${from}`, reason: error.message });
  }

  #drain(): void {
    if (this.#draining || this.#stop.signal.aborted) return;
    this.#draining = true;
    try {
      for (;;) {
        const effects = this.#core.memberlist.takeEffects();
        const events = this.#core.takeEvents();
        if (effects.length === 0 && events.length === 0) break;
        for (const effect of effects) this.#perform(effect);
        for (const event of events) this.#onEvent(event);
      }
    } finally {
      this.#draining = false;
    }
    this.#armWake();
  }

  #armWake(): void {
    const next = this.#core.memberlist.nextWakeMs();
    if (next === undefined || (next >= this.#wakeMs && this.#cancelWake !== undefined)) return;
    this.#cancelWake?.();
    this.#wakeMs = next;
    const delayMs = Math.min(MAX_SLEEP_MS, Math.max(0, Math.ceil(next - this.#clock.now())));
    this.#cancelWake = this.#clock.after(delayMs, () => {
      this.#cancelWake = undefined;
      this.#wakeMs = Infinity;
      this.run((nowMs) => this.#core.memberlist.tick(nowMs));
    });
  }

  #perform(effect: Effect): void {
    switch (effect.kind) {
      case "packet":
        return this.#transport.send(effect.to, effect.packet);
      case "dial":
        return this.#track(this.#dial(effect));
      case "answer": {
        const answer = this.#answers.get(effect.id);
        this.#answers.delete(effect.id);
        return answer?.(effect.bytes);
      }
    }
  }

  #track(task: Promise<void>): void {
    this.#tasks.add(task);
    task.finally(() => this.#tasks.delete(task));
  }

  async #dial(effect: Effect & { kind: "dial" }): Promise<void> {
    const { memberlist } = this.#core;
    const timeout = AbortSignal.timeout(effect.timeoutMs);
    const signal = AbortSignal.any([this.#stop.signal, timeout]);
    const reader = effect.reply ? memberlist.streamCodec.reader({ accepted: false }) : undefined;
    try {
      const message = await exchange(this.#transport, effect.to, { request: effect.request, reader, signal });
      this.run((nowMs) => memberlist.dialed(nowMs, effect.id, { message }));
    } catch (cause) {
      const error = this.#stop.signal.aborted
        ? "this node is stopping"
        : timeout.aborted
        ? `no answer within ${effect.timeoutMs} ms`
        : cause instanceof Error
        ? cause.message
        : String(cause);
      const refused = cause instanceof DecodeError && cause.sealed;
      this.run((nowMs) => memberlist.dialed(nowMs, effect.id, { error, refused }));
    }
  }

  #serve(stream: ByteStream, address: string): void {
    if (this.#stop.signal.aborted) return stream.close();
    const place = this.#places.admit(address);
    if (place === undefined) {
      this.#core.memberlist.streamRefused();
      return stream.close();
    }
    this.#track(this.#serveStream(stream).finally(() => place[Symbol.dispose]()));
  }

  async #serveStream(stream: ByteStream): Promise<void> {
    const { memberlist } = this.#core;
    const id = this.#nextStream++;
    const answered = new Promise<Uint8Array | undefined>((resolve) => this.#answers.set(id, resolve));
    const signal = AbortSignal.any([
      this.#stop.signal,
      AbortSignal.timeout(memberlist.config.tcpTimeoutMs),
    ]);
    using _closing = closeOnAbort(stream, signal);
    try {
      const message = await readMessage(
        stream,
        memberlist.streamCodec.reader({ accepted: true }),
        this.#budget,
      );
      if (signal.aborted) return;
      this.run((nowMs) => memberlist.receiveStream(nowMs, id, message));
      const answer = await answered;
      if (answer !== undefined) await writeAll(stream, answer);
    } catch (error) {
      if (signal.aborted) return;
      this.#log.debug("gossip stream failed", {
        reason: error instanceof Error ? error.message : String(error),
      });
      if (error instanceof BudgetError) memberlist.streamRefused();
      if (!(error instanceof DecodeError) || error.incomplete) return;
      this.run((nowMs) => memberlist.receiveBadStream(nowMs, id, error));
      await this.#answerBad(stream, answered);
    } finally {
      this.#answers.delete(id);
    }
  }

  async #answerBad(stream: ByteStream, answered: Promise<Uint8Array | undefined>): Promise<void> {
    const answer = await answered;
    if (answer === undefined) return;
    try {
      await writeAll(stream, answer);
    } catch (error) {
      this.#log.debug("gossip stream failed", {
        reason: error instanceof Error ? error.message : String(error),
      });
    }
  }
}
