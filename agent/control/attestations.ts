import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type BeaconAttestation,
  BeaconAttestationSchema,
  ClusterEvent,
  type ClusterMessage,
  ErrorResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { AttestRequest, AttestResponseSchema } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { Slots } from "../api/slots.ts";
import {
  attest,
  ATTESTATION_TYPES,
  type AttestationType,
  type Attested,
  type AttestedFacts,
  type Challenge,
  decodeChallenge,
  encodeChallenge,
  factsOf,
  NONCE_BYTES,
  verifyAttestation,
} from "../beacon/attestation.ts";
import type { IdentityClaim, NodeIdentity } from "../beacon/identity.ts";
import type { BeaconObservation } from "../beacon/observation.ts";
import type { StateVersion } from "../cluster/ports.ts";
import type { Membership } from "../membership/membership.ts";
import { askOne } from "./ask_one.ts";
import { decodeClusterMessage, encodeClusterMessage, unwrap } from "./cluster_messages.ts";
import type { ClusterView } from "./cluster_view.ts";

/** Time a node gets for an answer, milliseconds; then it is asked again with another nonce. */
export const ATTEST_WAIT_MS = 3_000;
/** How often a node is asked before it is given up. */
export const ATTEST_TRIES = 3;
/** Questions of clients under way at once. */
export const MAX_ATTEST_CALLS = 16;
/** Longest text of a fact; the answer is one packet. */
const MAX_FACT_LENGTH = 160;

/** What {@linkcode Attestations} work with. */
export interface AttestationParts {
  node: { id: string; name: string; version: string };
  identity: NodeIdentity;
  membership: Pick<Membership, "ask">;
  view: Pick<ClusterView, "find" | "nodeId" | "nodeName">;
  /** Who a node is known to be; absent for one whose signed state is not here. */
  claimOf(nodeId: string): IdentityClaim | undefined;
  /** The version of a node's state that is known, and its root. */
  rootOf(nodeId: string): (StateVersion & { root: Uint8Array }) | undefined;
  /** What this node states of a workload that it runs. */
  workload(id: string): AttestedFacts | undefined;
  nowMs(): number;
  elapsedMs(): number;
  observe?(observation: BeaconObservation): void;
  /** Told what an answer says of its node, where nobody else can be behind it. */
  onDeed?(nodeId: string, deed: "attested" | "contradiction"): void;
}

type Response = MessageInitShape<typeof AttestResponseSchema>;

/** Asks other nodes for attestations and verifies them; answers their questions. */
export class Attestations {
  readonly #parts: AttestationParts;
  readonly #slots = new Slots("attestations", MAX_ATTEST_CALLS);

  constructor(parts: AttestationParts) {
    this.#parts = parts;
  }

  /** A client's question. Throws `invalid` and `not-found`; a refused answer is a result. */
  async ask(request: Omit<AttestRequest, "$typeName" | "$unknown">, signal?: AbortSignal): Promise<Response> {
    using _slot = this.#slots.take();
    const { view, claimOf, elapsedMs, observe } = this.#parts;
    const { nodeId, type, workload } = this.#target(request);
    const startMs = elapsedMs();
    const claim = claimOf(nodeId);
    const result = claim === undefined
      ? { reason: "it is not known here by a signed state" }
      : await this.#challenge({ nodeId, type, workload }, claim, signal);
    const latencyMs = elapsedMs() - startMs;
    const judged = "reason" in result ? result : this.#compare(result, { nodeId, type, workload });
    const verified = !("reason" in judged);
    // An answer that is not signed as it should be may be anybody's.
    if (!("reason" in result)) this.#parts.onDeed?.(nodeId, verified ? "attested" : "contradiction");
    observe?.({ kind: "asked", type, result: verified ? "verified" : "refused", latencyMs });
    const facts = { nodeName: view.nodeName(nodeId), nodeId, type, latencyMs };
    if ("reason" in judged) return { ...facts, verified, reason: judged.reason };
    const { text: statement, signature, publicKey, remark } = judged;
    return { ...facts, verified, statement, signature, publicKey, remark };
  }

  /** Answers a question of another node; nothing where it is not for this one. Throws what a refusal says. */
  answer(message: ClusterMessage): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const asked = unwrap(message, BeaconAttestationSchema);
    const { node, observe } = this.#parts;
    if (asked === undefined || asked.nodeId !== node.id) return Promise.resolve(undefined);
    const type = ATTESTATION_TYPES.find((each) => each === asked.attestationType) ?? "unknown";
    try {
      const challenge = decodeChallenge(asked);
      if ("reason" in challenge) throw new Error(`Cannot attest: ${challenge.reason}`);
      const answer = create(BeaconAttestationSchema, {
        nodeId: node.id,
        attestationType: challenge.type,
        attestationData: this.#sign(challenge),
      });
      observe?.({ kind: "answered", type, result: "signed" });
      return Promise.resolve(
        encodeClusterMessage(ClusterEvent.BEACON_ATTEST, BeaconAttestationSchema, answer),
      );
    } catch (error) {
      observe?.({ kind: "answered", type, result: "refused" });
      return Promise.reject(error);
    }
  }

  #target(request: Pick<AttestRequest, "node" | "type" | "workload">) {
    const { view } = this.#parts;
    const text = request.type || (request.workload === "" ? "NODE_IDENTITY" : "WORKLOAD");
    const type = ATTESTATION_TYPES.find((each) => each === text);
    if (type === undefined) {
      throw new RuntimeError(
        "invalid",
        `Cannot attest "${text.slice(0, 40)}": it is none of ${ATTESTATION_TYPES.join(", ")}`,
      );
    }
    if ((type === "WORKLOAD") !== (request.workload !== "")) {
      throw new RuntimeError("invalid", "Cannot attest: WORKLOAD and a workload go together");
    }
    if (type !== "WORKLOAD") return { nodeId: view.nodeId(request.node), type, workload: undefined };
    const found = view.find(request.workload);
    const nodeId = request.node === "" ? found.nodeId : view.nodeId(request.node);
    return { nodeId, type, workload: found.workload.id };
  }

  /** Asks until there is an answer: packets are lost. A bad answer is one. */
  async #challenge(
    target: { nodeId: string; type: AttestationType; workload?: string },
    claim: IdentityClaim,
    signal: AbortSignal | undefined,
  ): Promise<Attested | { reason: string }> {
    const { node } = this.#parts;
    for (let tries = 0; tries < ATTEST_TRIES; tries++) {
      const challenge = { ...target, nonce: crypto.getRandomValues(new Uint8Array(NONCE_BYTES)) };
      if (target.nodeId === node.id) {
        return verifyAttestation(this.#sign(challenge), { challenge, claim });
      }
      const answer = await this.#query(challenge, signal);
      if (answer === undefined) continue;
      if ("reason" in answer) return answer;
      if (answer.nodeId !== target.nodeId || answer.attestationType !== target.type) {
        return { reason: "it answers another question" };
      }
      return verifyAttestation(answer.attestationData, { challenge, claim });
    }
    return { reason: `it did not answer, ${ATTEST_TRIES} times` };
  }

  async #query(
    challenge: Challenge,
    signal: AbortSignal | undefined,
  ): Promise<BeaconAttestation | { reason: string } | undefined> {
    const { membership, view } = this.#parts;
    const question = create(BeaconAttestationSchema, {
      nodeId: challenge.nodeId,
      attestationType: challenge.type,
      attestationData: encodeChallenge(challenge),
    });
    const payload = await askOne(membership, {
      member: view.nodeName(challenge.nodeId),
      payload: encodeClusterMessage(ClusterEvent.BEACON_ATTEST, BeaconAttestationSchema, question),
      timeoutMs: ATTEST_WAIT_MS,
      signal,
    });
    if (payload === undefined) return undefined;
    const message = decodeClusterMessage(payload);
    if (message instanceof Error) return { reason: "its answer cannot be read" };
    if (message.event === ClusterEvent.ERROR) {
      const refusal = unwrap(message, ErrorResponseSchema)?.error ?? "it does not say why";
      return { reason: `it refused: ${refusal.slice(0, 200)}` };
    }
    return unwrap(message, BeaconAttestationSchema) ?? { reason: "its answer cannot be read" };
  }

  #sign(challenge: Challenge): Uint8Array<ArrayBuffer> {
    const { identity, nowMs } = this.#parts;
    return attest(challenge, { identity, facts: this.#facts(challenge), nowMs: nowMs() });
  }

  #facts({ type, workload }: Challenge): AttestedFacts {
    const { node, identity, rootOf, workload: stated } = this.#parts;
    switch (type) {
      case "NODE_IDENTITY":
        return {
          agent_version: node.version.slice(0, MAX_FACT_LENGTH),
          name: node.name.slice(0, MAX_FACT_LENGTH),
          rotations: identity.rotations.length,
        };
      case "STATE_HASH": {
        const { incarnation, version, root } = rootOf(node.id)!;
        return { incarnation: String(incarnation), root: root.toHex(), version: String(version) };
      }
      case "WORKLOAD": {
        const facts = stated(workload!);
        if (facts === undefined) throw new Error("Cannot attest the workload: it does not run here");
        return Object.fromEntries(
          Object.entries(facts).map(([key, value]) => [
            key,
            typeof value === "string" ? value.slice(0, MAX_FACT_LENGTH) : value,
          ]),
        );
      }
    }
  }

  /** Holds a good answer against what is known here; a node that says two things of one version is found out. */
  #compare(
    attested: Attested,
    target: { nodeId: string; type: AttestationType; workload?: string },
  ): (Attested & { remark: string }) | { reason: string } {
    const facts = factsOf(attested);
    if (target.type === "STATE_HASH") {
      const known = this.#parts.rootOf(target.nodeId);
      if (known === undefined) return { ...attested, remark: "no state of it is known here" };
      const isSameVersion = facts.incarnation === String(known.incarnation) &&
        facts.version === String(known.version);
      if (!isSameVersion) {
        return { ...attested, remark: `version ${known.version} is known here, it is at ${facts.version}` };
      }
      if (facts.root !== known.root.toHex()) {
        return { reason: `it has told this node another state of version ${known.version}` };
      }
      return { ...attested, remark: "the same state is known here" };
    }
    if (target.type === "WORKLOAD") {
      const told = this.#told(target.workload!);
      if (told === "" || facts.proof_hash === "") return { ...attested, remark: "" };
      const isSame = told === facts.proof_hash;
      return {
        ...attested,
        remark: isSame ? "its state tells of the same proof" : "its state tells of another proof",
      };
    }
    return { ...attested, remark: "" };
  }

  #told(workload: string): string {
    try {
      return this.#parts.view.find(workload).workload.proof?.proofHash ?? "";
    } catch {
      return ""; // gone meanwhile
    }
  }
}
