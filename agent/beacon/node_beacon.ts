import { create } from "@bufbuild/protobuf";
import {
  type BeaconMetadata,
  type PeerObservation,
  PeerObservationSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { Log } from "../../runtime/log.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import type { NodeSummary } from "../cluster/reads.ts";
import type { LocalFacts } from "../policy/local.ts";
import type { Measured } from "../policy/remote.ts";
import { detectCapabilities, type DetectingEngine } from "./capabilities.ts";
import type { NodeIdentity } from "./identity.ts";
import { type LineFigures, LineQuality, type ProbeResult } from "./line_quality.ts";
import { BeaconTeller } from "./metadata.ts";
import { idBytes, idText } from "./node_id.ts";
import type { BeaconObservation } from "./observation.ts";
import { registrationText } from "./registration.ts";
import { Registry } from "./registry.ts";
import type { RegistryEndpoint } from "./registry_endpoint.ts";
import type { RegistryState } from "./registry_link.ts";
import {
  type Deed,
  haveMoved,
  type Judgement,
  Reputation,
  type SharedObservation,
  type Testimony,
} from "./reputation.ts";

/** What the operator says of a node in its beacon. */
export interface BeaconConfig {
  pricePerGb: number;
  /** What its reputation starts from, 0 to 1. */
  reputation: number;
  /** An external registry; absent means standalone. */
  endpoint?: RegistryEndpoint;
}

/** What a beacon says when the operator says nothing. */
export const DEFAULT_BEACON: BeaconConfig = { pricePerGb: 0, reputation: 0.5 };

/** Time between two looks at what was measured, milliseconds. */
export const BEACON_REFRESH_MS = 5_000;
/** Time between two samples of other nodes' proofs, milliseconds. */
export const SAMPLE_MS = 60_000;
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
  /** By name. */
  named(name: string): ClusterMember | undefined;
  listen(listener: { memberEvent?(member: ClusterMember, what: string): void }): () => void;
}

/** Where a beacon learns what the others say, and what their proofs are worth. */
export interface BeaconSources {
  nodes(): readonly NodeSummary[];
  /** Verifies a proof of any other node. */
  sampleProof?(): { nodeId: string; deed: Deed } | undefined;
}

/** What a {@linkcode NodeBeacon} is made of. */
export interface NodeBeaconOptions {
  identity: NodeIdentity;
  nodeName: string;
  version: string;
  engine: DetectingEngine;
  config?: BeaconConfig;
  /** The beacon has changed: the state is to be told anew. */
  onChange: () => void;
  observe?: (observation: BeaconObservation) => void;
  log: Log;
}

/** This node's beacon at work: measures, and says what is worth telling. */
export class NodeBeacon implements AsyncDisposable {
  readonly #options: NodeBeaconOptions;
  readonly #config: BeaconConfig;
  readonly #teller: BeaconTeller;
  readonly #lines = new LineQuality();
  readonly #stack = new AsyncDisposableStack();
  readonly #reputation: Reputation;
  #membership: MeasuredMembership | undefined;
  #sources: BeaconSources | undefined;
  readonly #registry: Registry | undefined;
  #observations: PeerObservation[] = [];
  #shared: readonly SharedObservation[] = [];
  #sampledMs = 0;
  #capabilities: string[] = [];
  #detectedMs = -Infinity;
  #told: BeaconMetadata | undefined;

  private constructor(options: NodeBeaconOptions) {
    this.#options = options;
    this.#config = options.config ?? DEFAULT_BEACON;
    this.#teller = new BeaconTeller(options.identity);
    this.#reputation = new Reputation({ selfId: options.identity.nodeId });
    const { endpoint } = this.#config;
    if (endpoint !== undefined) this.#registry = this.#stack.use(this.#newRegistry(endpoint));
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

  /** Measures with this membership from now on, and hears what the others say. */
  connect(membership: MeasuredMembership, sources: BeaconSources): void {
    this.#membership = membership;
    this.#sources = sources;
    this.#registry?.start();
    this.#stack.defer(membership.serf.listenProbes((outcome) => {
      this.#lines.record(outcome, performance.now());
      const id = membership.named(outcome.node)?.id;
      if (id !== undefined) this.note(id, outcome.via === "failed" ? "probe-failed" : "probe-answered");
    }));
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

  /** What this node saw of others, for its state; the same list while it says the same. */
  observations(): PeerObservation[] {
    return this.#observations;
  }

  /** Another node did something, for it or against it. */
  note(nodeId: string, deed: Deed): void {
    this.#reputation.note(nodeId, deed, performance.now());
  }

  /** What this node thinks of a node. */
  judge({ id, header }: Pick<NodeSummary, "id" | "header">): Judgement {
    const start = id === this.#options.identity.nodeId
      ? this.#config.reputation
      : header?.beacon?.startingReputation ?? 0;
    return this.#reputation.judge(id, start, performance.now());
  }

  /** How it stands with the external registry; nothing in standalone mode. */
  get registry(): RegistryState | undefined {
    return this.#registry?.state;
  }

  /** What policies know of this node itself. */
  localFacts(): LocalFacts {
    const { capabilities, queueDepth, pricePerGb, reputation } = this.#facts();
    return { capabilities, queueDepth, pricePerGb, reputation };
  }

  /**
   * What this node has measured of the line to another, by network coordinates where no probe was answered; and what it
   * thinks of it, where its state is verified: who has no identity would leave a bad reputation behind with its name.
   */
  measured(node: Pick<NodeSummary, "id" | "name" | "header" | "isVerified">): Measured {
    const { name } = node;
    const figures: LineFigures = this.#lines.to(name, performance.now());
    const serf = this.#membership?.serf;
    const byCoordinates = serf?.isAlive(name) ? serf.rttMs(name) : undefined;
    return {
      ...(byCoordinates !== undefined && { latencyMs: byCoordinates }),
      ...figures,
      ...(node.isVerified && { reputation: this.judge(node).score }),
    };
  }

  /** Looks at what was measured; done every {@linkcode BEACON_REFRESH_MS} by itself. */
  refresh(): void {
    if (performance.now() - this.#detectedMs >= DETECT_MS) {
      this.#detect().catch((error) => {
        this.#options.log.warn("cannot look at what this machine can do", { error: String(error) });
      });
    }
    this.#listen();
    const [beacon, observations] = [this.#told, this.#observations];
    this.#told = this.#measure();
    this.#observe();
    if (this.#told !== beacon) this.#registry?.changed();
    if (this.#told !== beacon || this.#observations !== observations) this.#options.onChange();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }

  #newRegistry(endpoint: RegistryEndpoint): Registry {
    const { identity, nodeName, version, observe, log } = this.#options;
    return new Registry({
      endpoint,
      registration: () =>
        registrationText(identity, { nodeName, version, beacon: this.metadata(), nowMs: Date.now() }),
      onState: (isConnected) => observe?.({ kind: "registry", isConnected }),
      log,
    });
  }

  #facts() {
    return {
      capabilities: this.#capabilities,
      queueDepth: this.#membership?.serf.queueDepth.total ?? 0,
      pricePerGb: this.#config.pricePerGb,
      reputation: this.judge({ id: this.#options.identity.nodeId, header: undefined }).score,
      startingReputation: this.#config.reputation,
    };
  }

  /** Takes what the others say, and looks at one of their proofs now and then. */
  #listen(): void {
    const nowMs = performance.now();
    const testimonies = (this.#sources?.nodes() ?? []).flatMap((
      { id, isSelf, isVerified, life, header },
    ): Testimony[] =>
      isSelf || !isVerified || life !== "live" || header === undefined ? [] : [{
        by: id,
        observations: header.observations.map(({ nodeId, score, weight }) => ({
          nodeId: idText(nodeId),
          score,
          weight,
        })),
      }]
    );
    this.#reputation.hear(testimonies, nowMs);
    if (nowMs - this.#sampledMs < SAMPLE_MS) return;
    this.#sampledMs = nowMs;
    const sample = this.#sources?.sampleProof?.();
    if (sample !== undefined) this.note(sample.nodeId, sample.deed);
  }

  /** Makes the list anew that is shared, when it says something else. */
  #observe(): void {
    const shared = this.#reputation.share(performance.now()).filter(({ nodeId }) =>
      idBytes(nodeId) !== undefined
    );
    if (!haveMoved(this.#shared, shared)) return;
    this.#shared = shared;
    this.#observations = shared.map(({ nodeId, score, weight }) =>
      create(PeerObservationSchema, { nodeId: idBytes(nodeId), score, weight })
    );
  }

  #measure(): BeaconMetadata {
    return this.#teller.tell({ ...this.#facts(), ...this.#lines.overall(performance.now()) }, Date.now());
  }

  async #detect(): Promise<void> {
    this.#detectedMs = performance.now();
    this.#capabilities = await detectCapabilities(this.#options.engine);
  }
}
