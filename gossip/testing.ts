import { DecodeError } from "./codec/error.ts";
import { NO_BYTES } from "./codec/text.ts";
import type { Keyring } from "./codec/keyring.ts";
import { PacketCodec } from "./codec/packet.ts";
import { Endpoint } from "./endpoint.ts";
import { DEFAULT_EAGER, type MemberlistConfig, PROFILES } from "./memberlist/config.ts";
import type { Effect } from "./memberlist/context.ts";
import { seededRandom } from "./random.ts";
import { DEFAULT_SERF_CONFIG, type SerfConfig } from "./serf/config.ts";
import type { SerfEvent } from "./serf/events.ts";
import type { KeyMemory } from "./serf/key_queries.ts";
import { SerfCore } from "./serf/serf.ts";

/** A few cores wired to each other without delay, for tests of single behaviours. */
export class Bench {
  nowMs = 0;
  readonly cores = new Map<string, SerfCore>();
  readonly events = new Map<string, SerfEvent[]>();
  readonly #down = new Set<string>();
  readonly #deaf = new Set<string>();
  /** Every packet that was sent, before it is cut off. */
  onPacket: ((from: string, to: Endpoint, messages: Uint8Array[]) => void) | undefined;
  #streamId = 0;

  /** Adds and starts a core; the port makes its address. */
  add(
    name: string,
    port: number,
    options: {
      memberlist?: Partial<MemberlistConfig>;
      serf?: Partial<SerfConfig>;
      keyring?: Keyring;
      label?: string;
      keyMemory?: KeyMemory;
    } = {},
  ): SerfCore {
    const core = new SerfCore({
      random: seededRandom(port),
      keyring: options.keyring,
      label: options.label,
      tags: new Map([["name", name]]),
      keyMemory: options.keyMemory,
      serf: { ...DEFAULT_SERF_CONFIG, ...options.serf },
      advertise: new Endpoint(new Uint8Array([127, 0, 0, 1]), port),
      memberlist: {
        ...PROFILES.lan,
        name,
        meta: NO_BYTES,
        vsn: new Uint8Array([1, 5, 2, 2, 5, 4]),
        udpBufferBytes: 1400,
        eager: DEFAULT_EAGER,
        deadNodeReclaimMs: 0,
        verifyMoves: true,
        lastCall: true,
        ...options.memberlist,
      },
    });
    this.cores.set(name, core);
    this.events.set(name, []);
    core.start(this.nowMs);
    this.settle();
    return core;
  }

  /** Cuts a core off, or, with `isDown` false, connects it again. */
  cut(name: string, isDown = true): void {
    if (isDown) this.#down.add(name);
    else this.#down.delete(name);
  }

  /** Lets a core get no packets, while streams work. */
  deafen(name: string, isDeaf = true): void {
    if (isDeaf) this.#deaf.add(name);
    else this.#deaf.delete(name);
  }

  /** Joins one core to another; gives the error, if any. */
  join(name: string, to: string): string | undefined {
    let result: string | undefined = "no answer";
    const target = this.cores.get(to)!.memberlist.self.endpoint;
    this.cores.get(name)!.join(this.nowMs, target, { ignoreOld: true }, (error) => result = error);
    this.settle();
    return result;
  }

  /** Lets time pass. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      let next = endMs;
      for (const core of this.cores.values()) next = Math.min(next, core.memberlist.nextWakeMs() ?? endMs);
      this.nowMs = Math.max(this.nowMs, next);
      for (const core of this.cores.values()) core.memberlist.tick(this.nowMs);
      this.settle();
      if (next >= endMs) return;
    }
  }

  /** Delivers everything that is under way. */
  settle(): void {
    for (let busy = true; busy;) {
      busy = false;
      for (const [name, core] of this.cores) {
        this.events.get(name)!.push(...core.takeEvents());
        const effects = core.memberlist.takeEffects();
        busy ||= effects.length > 0;
        for (const effect of effects) this.#perform(name, core, effect);
      }
    }
  }

  #perform(name: string, core: SerfCore, effect: Effect): void {
    if (effect.kind === "answer") return;
    const target = this.#at(effect.to);
    const cut = target === undefined || this.#down.has(name) || this.#down.has(target.memberlist.self.name);
    if (effect.kind === "packet") {
      this.onPacket?.(name, effect.to, unpack(effect.packet));
      if (cut || this.#deaf.has(target.memberlist.self.name)) return;
      target.memberlist.receivePacket(this.nowMs, core.memberlist.self.endpoint, effect.packet);
      return;
    }
    if (cut) return core.memberlist.dialed(this.nowMs, effect.id, { error: "connection refused" });
    try {
      const request = target.memberlist.streamCodec.reader({ accepted: true }).push(effect.request)!;
      const id = ++this.#streamId;
      target.memberlist.receiveStream(this.nowMs, id, request);
      const rest: Effect[] = [];
      let answer: Uint8Array | undefined;
      for (const other of target.memberlist.takeEffects()) {
        if (other.kind === "answer" && other.id === id) answer = other.bytes;
        else rest.push(other);
      }
      const message = answer && core.memberlist.streamCodec.reader({ accepted: false }).push(answer);
      core.memberlist.dialed(this.nowMs, effect.id, { message });
      for (const other of rest) this.#perform(target.memberlist.self.name, target, other);
    } catch (error) {
      const refused = error instanceof DecodeError && error.sealed;
      core.memberlist.dialed(this.nowMs, effect.id, { error: String(error), refused });
    }
  }

  #at(to: Endpoint): SerfCore | undefined {
    for (const core of this.cores.values()) {
      if (core.memberlist.self.endpoint.equals(to.addr, to.port)) return core;
    }
  }
}

/** The messages inside a packet that is neither sealed nor labelled. */
function unpack(packet: Uint8Array): Uint8Array[] {
  const messages: Uint8Array[] = [];
  try {
    new PacketCodec({ random: seededRandom(0) }).open(packet, (bytes, start, end) => {
      messages.push(bytes.slice(start, end));
    });
  } catch (error) {
    if (!(error instanceof DecodeError)) throw error; // It is sealed.
  }
  return messages;
}
