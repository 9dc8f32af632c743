import { create } from "@bufbuild/protobuf";
import {
  type BeaconMetadata,
  BeaconMetadataSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { canonicalBytes } from "../canonical.ts";
import { type NodeIdentity, verify } from "./identity.ts";
import { isSameBytes } from "./identity_rotation.ts";
import type { LineFigures } from "./line_quality.ts";

/** What a beacon says besides who says it and when. */
export interface BeaconFacts extends LineFigures {
  capabilities: readonly string[];
  queueDepth: number;
  pricePerGb: number;
  /** 0 to 1, of what others saw. */
  reputation: number;
  /** What it starts from. */
  startingReputation: number;
}

/** Digits after the point of every figure in a beacon. */
const UNIT = 1_000;
/** A figure that moved by less than this part of itself is not told anew. */
const RELATIVE_STEP = 0.5;
/** Nor one that moved by less than this. */
const ABSOLUTE_STEP = { latencyMs: 2, jitterMs: 5, packetLoss: 2, queueDepth: 16, reputation: 0.02 };

/**
 * This node's beacon: signed, and made anew only when something in it has moved so far that it matters, so that an idle
 * cluster has nothing to tell.
 */
export class BeaconTeller {
  readonly #identity: NodeIdentity;
  #told: BeaconMetadata | undefined;
  #key: Uint8Array | undefined;

  constructor(identity: NodeIdentity) {
    this.#identity = identity;
  }

  /** Whether the beacon told last is signed by the key that the node has now. */
  get isKeyCurrent(): boolean {
    return this.#key !== undefined && isSameBytes(this.#key, this.#identity.publicKey);
  }

  /** The beacon for these facts; the same object as before while nothing worth telling has changed. */
  tell(facts: BeaconFacts, nowMs: number): BeaconMetadata {
    const { nodeId, publicKey } = this.#identity;
    const next = create(BeaconMetadataSchema, {
      beaconNodeId: nodeId,
      timestamp: BigInt(Math.round(nowMs)),
      reputationScore: String(rounded(facts.reputation)),
      nodeCapabilities: [...facts.capabilities],
      latencyMs: rounded(facts.latencyMs ?? 0),
      jitterMs: rounded(facts.jitterMs ?? 0),
      packetLoss: rounded(facts.packetLossPercent ?? 0),
      queueDepth: facts.queueDepth,
      pricePerGb: facts.pricePerGb,
      startingReputation: facts.startingReputation,
    });
    if (this.#told !== undefined && this.isKeyCurrent && !isWorthTelling(this.#told, next)) return this.#told;
    next.nodeSignature = this.#identity.sign("hypercore/beacon/1", beaconBytes(next)!);
    this.#key = publicKey;
    return this.#told = next;
  }
}

/** Whether the holder of the key signed this beacon, to the bit. False, never an error, for whatever a peer may send. */
export function verifyBeacon(beacon: BeaconMetadata, publicKey: Uint8Array): boolean {
  const bytes = beaconBytes(beacon);
  return bytes !== undefined && verify(publicKey, "hypercore/beacon/1", bytes, beacon.nodeSignature);
}

/**
 * What a beacon's signature is over: its fields in canonical JSON. Figures are whole thousandths, price and starting
 * reputation the text of their shortest form. Undefined for a beacon that no agent makes.
 */
function beaconBytes(beacon: BeaconMetadata): Uint8Array | undefined {
  const { latencyMs, jitterMs, packetLoss, pricePerGb, startingReputation } = beacon;
  for (const value of [latencyMs, jitterMs, packetLoss]) {
    if (!(value >= 0) || rounded(value) !== value || Object.is(value, -0)) return undefined;
  }
  for (const value of [pricePerGb, startingReputation]) {
    if (!(value >= 0) || Object.is(value, -0)) return undefined;
  }
  const atMs = Number(beacon.timestamp);
  if (!Number.isSafeInteger(atMs)) return undefined;
  const thousandths = [latencyMs, jitterMs, packetLoss].map((value) => Math.round(value * UNIT));
  if (!thousandths.every(Number.isSafeInteger)) return undefined;
  try {
    return canonicalBytes({
      at_ms: atMs,
      capabilities: beacon.nodeCapabilities,
      jitter_us: thousandths[1],
      latency_us: thousandths[0],
      node_id: beacon.beaconNodeId,
      packet_loss_per_100000: thousandths[2],
      price_per_gb: String(pricePerGb),
      queue_depth: beacon.queueDepth,
      reputation: beacon.reputationScore,
      starting_reputation: String(startingReputation),
    });
  } catch {
    return undefined; // text with half a surrogate pair
  }
}

function isWorthTelling(told: BeaconMetadata, next: BeaconMetadata): boolean {
  if (told.pricePerGb !== next.pricePerGb) return true;
  if (told.nodeCapabilities.join("\n") !== next.nodeCapabilities.join("\n")) return true;
  const { latencyMs, jitterMs, packetLoss, queueDepth, reputation } = ABSOLUTE_STEP;
  return hasMoved(told.latencyMs, next.latencyMs, latencyMs) ||
    hasMoved(told.jitterMs, next.jitterMs, jitterMs) ||
    hasMoved(told.packetLoss, next.packetLoss, packetLoss) ||
    hasMoved(told.queueDepth, next.queueDepth, queueDepth) ||
    Math.abs(Number(told.reputationScore) - Number(next.reputationScore)) >= reputation;
}

function hasMoved(from: number, to: number, atLeast: number): boolean {
  return Math.abs(to - from) >= Math.max(atLeast, RELATIVE_STEP * from);
}

function rounded(value: number): number {
  return Math.round(value * UNIT) / UNIT;
}
