import { create } from "@bufbuild/protobuf";
import { type Candidate, LATECOMER_MS, Placement } from "../../agent/cluster/placement.ts";
import { GOSSIP } from "../../agent/cluster/tags.ts";
import type { Profile } from "../../gossip/memberlist/config.ts";
import { seededRandom } from "../../gossip/random.ts";
import {
  CapacitySchema,
  OfferSchema,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { CALM } from "./network.ts";
import { World } from "./world.ts";

/** What is asked of {@linkcode measurePlacement}. */
export interface PlacementScaleOptions {
  nodes: number;
  profile: Profile;
  seed: number;
  /** Share of packets lost. */
  loss: number;
  decisions: number;
  /** Longest wait for offers, milliseconds of the cluster's clock. */
  waitMs: number;
}

/** Milliseconds of the cluster's clock from the question to the chosen node. */
export interface PlacementScale {
  medianMs: number;
  p99Ms: number;
  worstMs: number;
  /** Offers per decision. */
  offers: number;
}

/** Bytes of a question and of an offer, on the wire about as long. */
const QUESTION = new Uint8Array(250);
const OFFER = new Uint8Array(120);
/** How long a node takes for its offer, milliseconds. */
const THINK_MS = 2;
const MEMORY_BYTES = 1n << 36n;

/** Ranked placements in a simulated cluster: the shipping gossip cores, and the shipping choice on top of them. */
export function measurePlacement(options: PlacementScaleOptions): PlacementScale {
  const { nodes, profile, seed, loss, decisions, waitMs } = options;
  const world = new World({ seed, nodes, profile, eager: true, conditions: { ...CALM, loss, jitterMs: 1 } });
  world.onEvent = (node, event) => {
    if (event.kind !== "query") return;
    world.at(world.nowMs + THINK_MS, () => {
      world.run(node, () => node.core.respond(world.nowMs, event, OFFER));
    });
  };
  world.startKnown();
  world.advance(60_000);
  const random = seededRandom(seed);
  const request = create(VmSpawnRequestSchema, {
    imageRef: "registry.example.com/web:1",
    cores: 1,
    memory: 128,
  });
  const candidates = world.nodes.map(({ name }): Candidate => ({
    id: name,
    name,
    tags: {},
    capacity: create(CapacitySchema, {
      milliCpus: 64_000,
      memoryBytes: MEMORY_BYTES,
      usedMemoryBytes: MEMORY_BYTES * BigInt(random.int(90)) / 100n,
    }),
    cordoned: false,
    sameImage: 0,
  }));
  const tookMs: number[] = [];
  let offers = 0;
  for (let i = 0; i < decisions; i++) {
    const from = world.nodes[random.int(nodes)];
    const placement = new Placement({ request, candidates, mode: "ranked", random });
    const startMs = world.nowMs;
    let chosen: string | undefined;
    for (let asked = placement.ask(); chosen === undefined && asked.length > 0; asked = placement.ask()) {
      let isOver = false;
      let lastMs = Infinity;
      const others = asked.filter((id) => id !== from.name);
      if (others.length < asked.length) placement.offered(from.name, create(OfferSchema));
      world.run(from, () => {
        from.core.query(world.nowMs, GOSSIP.query, QUESTION, {
          filters: [{ kind: "nodes", nodes: others }],
          timeoutMs: waitMs,
          handler: {
            onResponse: (name) => {
              offers++;
              lastMs = world.nowMs;
              placement.offered(name, create(OfferSchema));
            },
            onDone: () => isOver = true,
          },
        });
      });
      const isDone = () =>
        placement.isSettled || isOver || (placement.isGoodEnough && world.nowMs >= lastMs + LATECOMER_MS);
      world.advanceUntil(isDone, { stepMs: 1, limitMs: waitMs });
      chosen = placement.next();
    }
    if (chosen === undefined) throw placement.error();
    tookMs.push(world.nowMs - startMs);
    world.advance(world.nowMs + 500);
  }
  tookMs.sort((a, b) => a - b);
  return {
    medianMs: tookMs[tookMs.length >> 1],
    p99Ms: tookMs[Math.floor(tookMs.length * 0.99)],
    worstMs: tookMs[tookMs.length - 1],
    offers: Math.round(offers / decisions),
  };
}
