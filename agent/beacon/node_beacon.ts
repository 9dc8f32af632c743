import type { BeaconMetadata } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Log } from "../../runtime/log.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import type { LocalFacts } from "../policy/local.ts";
import type { Measured } from "../policy/remote.ts";
import { detectCapabilities, type DetectingEngine } from "./capabilities.ts";
import type { NodeIdentity } from "./identity.ts";
import { type LineFigures, LineQuality, type ProbeResult } from "./line_quality.ts";
import { BeaconTeller } from "./metadata.ts";

/** What the operator says of a node in its beacon. */
export interface BeaconConfig {
  pricePerGb: number;
  /** What its reputation starts from, 0 to 1. */
  reputation: number;
}

/** What a beacon says when the operator says nothing. */
export const DEFAULT_BEACON: BeaconConfig = { pricePerGb: 0, reputation: 0.5 };

/** Time between two looks at what was measured, milliseconds. */
export const BEACON_REFRESH_MS = 5_000;
/** Time between two looks at what the machine can do, milliseconds. */
export const DETECT_MS = 600_000;
/** An agent's start waits no longer than this for what the machine can do, milliseconds. */
const FIRST_DETECT_MS = 3_000;

/** The part of a membership that a beacon measures with. */
export interface MeasuredMembership {
  readonly serf: {
    readonly queueDepth: { total: number };
    listenProbes(listener: (outcome: ProbeResult) => void): () => void;
    rttMs(name: string): number | undefined;
    isAlive(name: string): boolean;
  };
  listen(listener: { memberEvent?(member: ClusterMember, what: string): void }): () => void;
}

/** What a {@linkcode NodeBeacon} is made of. */
export interface NodeBeaconOptions {
  identity: NodeIdentity;
  engine: DetectingEngine;
  config?: BeaconConfig;
  /** The beacon has changed: the state is to be told anew. */
  onChange: () => void;
  log: Log;
}

/** This node's beacon at work: measures, and says what is worth telling. */
export class NodeBeacon implements Disposable {
  readonly #options: NodeBeaconOptions;
  readonly #config: BeaconConfig;
  readonly #teller: BeaconTeller;
  readonly #lines = new LineQuality();
  readonly #stack = new DisposableStack();
  #membership: MeasuredMembership | undefined;
  #capabilities: string[] = [];
  #detectedMs = -Infinity;
  #told: BeaconMetadata | undefined;

  private constructor(options: NodeBeaconOptions) {
    this.#options = options;
    this.#config = options.config ?? DEFAULT_BEACON;
    this.#teller = new BeaconTeller(options.identity);
  }

  /** Looks at the machine, and begins to measure once it is connected. */
  static async open(options: NodeBeaconOptions): Promise<NodeBeacon> {
    const beacon = new NodeBeacon(options);
    const { promise, resolve } = Promise.withResolvers<void>();
    const limit = setTimeout(resolve, FIRST_DETECT_MS);
    await Promise.race([beacon.#detect(), promise]);
    clearTimeout(limit);
    const timer = setInterval(() => beacon.refresh(), BEACON_REFRESH_MS);
    beacon.#stack.defer(() => clearInterval(timer));
    return beacon;
  }

  /** Measures with this membership from now on. */
  connect(membership: MeasuredMembership): void {
    this.#membership = membership;
    this.#stack.defer(
      membership.serf.listenProbes((outcome) => this.#lines.record(outcome, performance.now())),
    );
    this.#stack.defer(membership.listen({
      memberEvent: (member, what) => {
        if (what === "failed" || what === "left" || what === "reaped") this.#lines.forget(member.name);
      },
    }));
  }

  /** What goes into the state of this node; the same object while it says the same. */
  metadata(): BeaconMetadata {
    if (this.#told === undefined || !this.#teller.isKeyCurrent) this.#told = this.#measure();
    return this.#told;
  }

  /** What policies know of this node itself. */
  localFacts(): LocalFacts {
    const { capabilities, queueDepth, pricePerGb, reputation } = this.#facts();
    return { capabilities, queueDepth, pricePerGb, reputation };
  }

  /** What this node has measured of the line to another, by its name; by network coordinates where no probe was answered. */
  measured(name: string): Measured {
    const figures: LineFigures = this.#lines.to(name, performance.now());
    const serf = this.#membership?.serf;
    const byCoordinates = serf?.isAlive(name) ? serf.rttMs(name) : undefined;
    return { ...(byCoordinates !== undefined && { latencyMs: byCoordinates }), ...figures };
  }

  /** Looks at what was measured; done every {@linkcode BEACON_REFRESH_MS} by itself. */
  refresh(): void {
    if (performance.now() - this.#detectedMs >= DETECT_MS) {
      this.#detect().catch((error) => {
        this.#options.log.warn("cannot look at what this machine can do", { error: String(error) });
      });
    }
    const before = this.#told;
    this.#told = this.#measure();
    if (this.#told !== before) this.#options.onChange();
  }

  [Symbol.dispose](): void {
    this.#stack.dispose();
  }

  #facts() {
    return {
      capabilities: this.#capabilities,
      queueDepth: this.#membership?.serf.queueDepth.total ?? 0,
      pricePerGb: this.#config.pricePerGb,
      reputation: this.#config.reputation,
      startingReputation: this.#config.reputation,
    };
  }

  #measure(): BeaconMetadata {
    return this.#teller.tell({ ...this.#facts(), ...this.#lines.overall(performance.now()) }, Date.now());
  }

  async #detect(): Promise<void> {
    this.#detectedMs = performance.now();
    this.#capabilities = await detectCapabilities(this.#options.engine);
  }
}
