import { encodeSuspect } from "../../gossip/codec/messages.ts";
import type { SerfEvent } from "../../gossip/serf/events.ts";
import type { SerfCore } from "../../gossip/serf/serf.ts";

/** Deliberately broken builds, by name: the checks must catch each. */
export const CANARIES: Readonly<Record<string, (core: SerfCore) => void>> = {
  /** Never hears that it is suspected, so it cannot refute; and one in a hundred acks goes missing. */
  deaf(core) {
    const { memberlist } = core;
    const receive = memberlist.receivePacket.bind(memberlist);
    const accusation = encodeSuspect({ incarnation: 1, node: "node-1", from: "node-0" });
    let packets = 0;
    memberlist.receivePacket = (nowMs, from, packet) => {
      if (++packets % 500 === 0 && memberlist.self.name !== "node-1") receive(nowMs, from, accusation);
      if (memberlist.self.name === "node-1" && packet.length > 0 && packet[0] !== 0) return undefined;
      return receive(nowMs, from, packet);
    };
  },
  /** Forgets which events it has seen. */
  forgetful(core) {
    const take = core.takeEvents.bind(core);
    core.takeEvents = () =>
      take().flatMap((event): SerfEvent[] => event.kind === "user" ? [event, event] : [event]);
  },
  /** Never tries to reach those who failed, nor exchanges state. */
  resigned(core) {
    core.memberlist.pushPull = (_to, options, done) => {
      if (!options.join || core.memberlist.nowMs > 60_000) return done("resigned");
      Object.getPrototypeOf(core.memberlist).pushPull.call(core.memberlist, _to, options, done);
    };
  },
  /** One node in thirty keeps every event to itself. */
  secretive(core) {
    if (core.memberlist.self.name !== "node-2") return;
    const take = core.takeEvents.bind(core);
    core.takeEvents = () => take().filter((event) => event.kind !== "user");
  },
  /** Sets a timer with each packet and never runs it. */
  hoarder(core) {
    const { memberlist } = core;
    const receive = memberlist.receivePacket.bind(memberlist);
    memberlist.receivePacket = (nowMs, from, packet) => {
      for (let i = 0; i < 100; i++) memberlist.timers.set(nowMs + 86_400_000, () => {});
      return receive(nowMs, from, packet);
    };
  },
  /** After a while one node answers but no longer asks. */
  idle(core) {
    if (core.memberlist.self.name !== "node-3") return;
    const { memberlist } = core;
    let idle = false;
    const tick = memberlist.tick.bind(memberlist);
    memberlist.tick = (nowMs) => {
      idle ||= nowMs >= 60_000;
      if (!idle) tick(nowMs);
    };
    const next = memberlist.nextWakeMs.bind(memberlist);
    // Once idle it wants no wake either: one that does nothing would be due again at once, for ever.
    memberlist.nextWakeMs = () => idle ? undefined : next();
  },
};
