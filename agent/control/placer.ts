import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  type Offer,
  type VmSpawnRequest,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  type PeerService,
  type PlaceRequest,
  PlaceRequestSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import type { Client } from "@connectrpc/connect";
import type { Random } from "../../gossip/mod.ts";
import type { CreateOptions } from "../../runtime/engine.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import type { PullProgress } from "../../runtime/image/mod.ts";
import { type Candidate, Placement, type PlacementMode, type PlacementPolicy } from "../cluster/placement.ts";
import type { Membership } from "../membership/membership.ts";
import { parseSpawn } from "../workloads/parse_spawn.ts";
import type { Placement as StartOf } from "../workloads/spawner.ts";
import type { LocalNode } from "./local_node.ts";
import { askForOffers } from "./offers.ts";
import { isOriginal, OriginalNodes } from "./original_nodes.ts";

/** Longest wait for offers in a small cluster, milliseconds; it ends when all have answered. */
export const OFFER_WAIT_MS = 400;
/** Where nobody took it, those who did not answer are asked again, and waited for this long, milliseconds. */
export const ASK_AGAIN_MS: readonly number[] = [1_000, 4_000];

/** Failures that another node would meet as well. */
const FINAL: readonly RuntimeError["code"][] = [
  "invalid",
  "not-found",
  "unauthenticated",
  "canceled",
  "already-exists",
];

/** What decides where a workload goes, and what starts it there. */
export interface PlacerParts {
  self: { id: string; name: string };
  local: LocalNode;
  membership: Membership;
  peer(nodeId: string): Client<typeof PeerService>;
  /** Learns the present state of a node, as far as it can be had soon; never rejects. */
  catchUp?(nodeId: string): Promise<void>;
  /** Facts of every node, for the choice. */
  candidates(request: VmSpawnRequest): Candidate[];
  /** Where a workload of this id is already. */
  existing(id: string): VmSpawnResponse | undefined;
  /** Id of the live workload that has this name, if any. */
  named(name: string): string | undefined;
  /** Judges a request on all nodes. Throws what is wrong with it everywhere. */
  judge?: (request: VmSpawnRequest, options: { id?: string }) => Promise<JudgedRequest>;
  /** Told whether a node that was asked to start a workload did. */
  observe?: (nodeId: string, deed: "spawn-kept" | "spawn-broken") => void;
  mode: PlacementMode;
  random: Random;
  newId(): string;
}

/** What the policies say of a request. */
export interface JudgedRequest {
  /** With its policy's text in place of the policy's name, which other nodes may not know, or know as another. */
  request: VmSpawnRequest;
  /** Of each node; nothing when no policy is in force. */
  policy?: PlacementPolicy;
  /** It runs there. */
  chosen?(nodeId: string): void;
}

/** How a placement is narrowed down, and what is fixed about the workload. */
export interface PlaceOptions extends CreateOptions, StartOf {
  id: string;
  /** Nodes that must not take it. */
  exclude?: ReadonlySet<string>;
  /** The only node that may. */
  to?: string;
}

/** Where a workload went. */
export interface Placed {
  nodeId: string;
  response: VmSpawnResponse;
}

/** Finds a node for a workload: asks all for offers, ranks them, and tries one after the other. */
export class Placer {
  readonly #parts: PlacerParts;

  constructor(parts: PlacerParts) {
    this.#parts = parts;
  }

  /** A user's spawn. The same request id again is answered with what it made. Throws `RuntimeError`. */
  async spawn(request: VmSpawnRequest, options: CreateOptions = {}): Promise<VmSpawnResponse> {
    const { existing, named, newId } = this.#parts;
    // What is wrong with it is wrong everywhere: it is said at once.
    parseSpawn(request, { nodeName: request.node, reservedPorts: new Set() });
    const id = request.requestId === "" ? newId() : idOf(request.requestId);
    const before = request.requestId === "" ? undefined : existing(id);
    if (before !== undefined) return before;
    const holder = request.name === "" ? undefined : named(request.name);
    if (holder !== undefined) {
      throw new RuntimeError(
        "already-exists",
        `Cannot admit the workload: the name "${request.name}" belongs to ${holder}`,
      );
    }
    if (request.dryRun) return (await this.choose(request, options)).response;
    const { nodeId, response } = await this.place(request, { ...options, id });
    if (nodeId !== this.#parts.self.id) await this.#parts.catchUp?.(nodeId);
    return response;
  }

  /** Only says which node would take it. */
  async choose(
    request: VmSpawnRequest,
    options: { signal?: AbortSignal; exclude?: ReadonlySet<string> } = {},
  ): Promise<Placed> {
    const round = await this.#round(request, options);
    const nodeId = await round.next();
    return {
      nodeId,
      response: create(VmSpawnResponseSchema, {
        node: round.nameOf(nodeId),
        offer: round.offers.get(nodeId),
      }),
    };
  }

  /** Starts it on the best node that takes it. Throws every node's reason when none does. */
  async place(request: VmSpawnRequest, options: PlaceOptions): Promise<Placed> {
    const round = await this.#round(request, { ...options, isSure: true });
    for (;;) {
      const nodeId = await round.next();
      try {
        const response = await this.#start(nodeId, round.request, options);
        round.chosen(nodeId);
        this.#parts.observe?.(nodeId, "spawn-kept");
        return { nodeId, response };
      } catch (error) {
        options.signal?.throwIfAborted();
        if (round.isAlone || (error instanceof RuntimeError && FINAL.includes(error.code))) throw error;
        // Somebody else may have taken the room since it was offered.
        const isTaken = error instanceof RuntimeError && error.code === "exhausted";
        if (!isTaken) this.#parts.observe?.(nodeId, "spawn-broken");
        round.failed(nodeId, error);
      }
    }
  }

  async #round(request: VmSpawnRequest, options: RoundOptions): Promise<Round> {
    const { judge, self } = this.#parts;
    const all = this.#parts.candidates(request).filter(({ id }) => !options.exclude?.has(id));
    const isAlone = all.length === 1 && all[0].id === self.id;
    const candidates = options.to === undefined ? all : all.filter(({ id }) => id === options.to);
    // A lone node judges when it admits.
    const judged = isAlone || judge === undefined ? { request } : await judge(request, { id: options.id });
    return new Round(this.#parts, judged, { ...options, candidates, isAlone });
  }

  #start(nodeId: string, request: VmSpawnRequest, options: PlaceOptions): Promise<VmSpawnResponse> {
    const { self, local, membership } = this.#parts;
    if (nodeId === self.id) return local.place(request, options);
    const member = membership.members().get(nodeId);
    if (member === undefined) {
      throw new RuntimeError("unavailable", `Cannot reach node "${nodeId}": it is no member any more`);
    }
    if (isOriginal(member)) return new OriginalNodes(membership).spawn(member, request, options.signal);
    return this.#startByCall(nodeId, request, options);
  }

  async #startByCall(
    nodeId: string,
    request: VmSpawnRequest,
    options: PlaceOptions,
  ): Promise<VmSpawnResponse> {
    const stream = this.#parts.peer(nodeId).place(placeRequest(request, options), {
      signal: options.signal,
      timeoutMs: 0,
    });
    for await (const { event } of stream) {
      if (event.case === "pull") options.onPull?.(progress(event.value));
      if (event.case === "step") options.onStep?.(event.value);
      if (event.case === "result") return event.value;
    }
    throw new RuntimeError(
      "unavailable",
      `Cannot start workload "${options.id}": the node's answer broke off`,
    );
  }
}

/** How one search is narrowed down. */
interface RoundOptions {
  signal?: AbortSignal;
  exclude?: ReadonlySet<string>;
  to?: string;
  isSure?: boolean;
  /** Where the workload has an id already. */
  id?: string;
}

/** One search for a node: asks, and gives one after the other. */
class Round {
  readonly offers = new Map<string, Offer | undefined>();
  readonly isAlone: boolean;
  readonly #parts: PlacerParts;
  readonly #judged: JudgedRequest;
  /** For this search: narrowed down to one node where there may be no other. */
  readonly #question: VmSpawnRequest;
  readonly #signal: AbortSignal | undefined;
  readonly #placement: Placement;
  readonly #names: ReadonlyMap<string, string>;
  /** What is wanted is the workload itself, so that a lone node need not make an offer before it is tried. */
  readonly #isSure: boolean;
  /** Of this node when it is the only one: said as it is. */
  #ownRefusal: unknown;
  /** How often the silent ones were asked again. */
  #timesAgain = 0;

  constructor(
    parts: PlacerParts,
    judged: JudgedRequest,
    options: RoundOptions & { candidates: readonly Candidate[]; isAlone: boolean },
  ) {
    const { candidates, isAlone, to } = options;
    const { request, policy } = judged;
    this.isAlone = isAlone;
    this.#isSure = options.isSure ?? false;
    this.#parts = parts;
    this.#judged = judged;
    const question = options.id === undefined ? request : { ...request, workloadId: options.id };
    this.#question = to === undefined ? question : { ...question, node: to };
    this.#signal = options.signal;
    this.#names = new Map(candidates.map(({ id, name }) => [id, name]));
    try {
      const { mode, random } = parts;
      this.#placement = new Placement({ request: this.#question, candidates, mode, policy, random });
    } catch (error) {
      throw new RuntimeError("invalid", error instanceof Error ? error.message : String(error), {
        cause: error,
      });
    }
  }

  /** As it is sent to the node that is to run it. */
  get request(): VmSpawnRequest {
    return this.#judged.request;
  }

  /** It runs there. */
  chosen(nodeId: string): void {
    this.#judged.chosen?.(nodeId);
  }

  nameOf(nodeId: string): string {
    return this.#names.get(nodeId) ?? nodeId;
  }

  failed(nodeId: string, error: unknown): void {
    this.#placement.refused(nodeId, error instanceof Error ? error.message : String(error));
  }

  /** The next node to try. Throws when there is none left. */
  async next(): Promise<string> {
    for (;;) {
      const nodeId = this.#placement.next();
      if (nodeId !== undefined) return nodeId;
      const asked = this.#placement.ask();
      const silent = asked.length === 0 ? this.#placement.silent() : [];
      if (silent.length > 0 && this.#timesAgain < ASK_AGAIN_MS.length) {
        await this.#ask(new Set(silent), ASK_AGAIN_MS[this.#timesAgain++]);
        continue;
      }
      if (asked.length === 0) {
        if (this.isAlone && this.#ownRefusal !== undefined) throw this.#ownRefusal;
        throw new RuntimeError("exhausted", this.#placement.error().message);
      }
      if (this.isAlone && this.#isSure) return asked[0];
      await this.#ask(new Set(asked), OFFER_WAIT_MS);
    }
  }

  async #ask(asked: ReadonlySet<string>, timeoutMs: number): Promise<void> {
    const { self, local, membership } = this.#parts;
    const placement = this.#placement;
    const own = asked.has(self.id)
      ? local.offer(this.#question).then(
        ({ offer }) => this.#offered(self.id, offer),
        (error) => {
          this.#ownRefusal = error;
          this.failed(self.id, error);
        },
      )
      : Promise.resolve();
    const members = [...membership.members().values()].filter(({ id, status }) => {
      return id !== self.id && status === "alive" && asked.has(id);
    });
    await Promise.all([
      own,
      askForOffers(membership, this.#question, {
        members,
        timeoutMs,
        signal: this.#signal,
        call: ({ id }, request, signal) => this.#parts.peer(id).offer(request, { signal }),
        onAnswer: (answer) => {
          if (answer.kind === "offer") this.#offered(answer.member.id, answer.offer);
          else placement.refused(answer.member.id, answer.reason);
          if (placement.isSettled) return "settled";
          return placement.isGoodEnough ? "enough" : "open";
        },
      }),
    ]);
    this.#signal?.throwIfAborted();
  }

  #offered(nodeId: string, offer: Offer | undefined): void {
    this.offers.set(nodeId, offer);
    this.#placement.offered(nodeId, offer);
  }
}

/** The id of the workload that a request id makes: the same on every node. */
function idOf(requestId: string): string {
  return createHash("sha256").update(`hypercore request\n${requestId}`).digest("hex").slice(0, 12);
}

function placeRequest(request: VmSpawnRequest, options: PlaceOptions): PlaceRequest {
  return create(PlaceRequestSchema, {
    request,
    id: options.id,
    generation: BigInt(options.generation ?? 1),
    createdAtMs: BigInt(options.createdAtMs ?? 0),
    restarts: options.restarts ?? 0,
  });
}

function progress(
  value: { digest: string; status: string; bytes: bigint; totalBytes: bigint; bytesPerSecond: bigint },
) {
  return {
    digest: value.digest,
    status: value.status as PullProgress["status"],
    bytes: Number(value.bytes),
    totalBytes: Number(value.totalBytes),
    bytesPerSecond: Number(value.bytesPerSecond),
  };
}
