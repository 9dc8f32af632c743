import type { Endpoint } from "../../gossip/endpoint.ts";
import type { SerfCore } from "../../gossip/serf/serf.ts";
import type { Timer } from "../../gossip/timers.ts";

/** One simulated process. */
export class SimNode {
  up = false;
  /** Inputs wait until then: a stalled process. */
  stalledUntilMs = 0;
  /** When it last came up, healed or was otherwise disturbed. */
  disturbedMs = 0;
  wake: Timer | undefined;
  wakeMs = Infinity;

  constructor(readonly index: number, public endpoint: Endpoint, public core: SerfCore) {}

  get name(): string {
    return this.core.memberlist.self.name;
  }
}
