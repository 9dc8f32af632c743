import assert from "node:assert/strict";
import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  NodeStateResponseSchema,
  TombstoneSchema,
  WorkloadStateSchema,
} from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { type StateUpdate, StateUpdateSchema } from "../proto/gen/hypercore/v1/peer_pb.ts";
import type { RotatableIdentity } from "./beacon/identity_live.ts";
import { IdentitySigner } from "./beacon/state_signature.ts";
import { memoryIdentity } from "./beacon/testing.ts";
import { encodeFragments } from "./cluster/go_fragments.ts";
import { OwnState } from "./cluster/own_state.ts";
import { rootHash, signedBytes, stateRoot } from "./cluster/state_digest.ts";
import { headerDigest, workloadDigest } from "./cluster/state_digest.ts";
import { GOSSIP, PROTOCOL_VERSION, TAG } from "./cluster/tags.ts";
import { local, workload } from "./cluster/testing.ts";
import { joinAs, startNodes, type TestNode, until } from "./testing.ts";

const IDS = { genuine: "00000000000a", later: "00000000000b", forged: "00000000000f" };

/** A node's own statements, signed by its identity. */
class Statements {
  readonly #own: OwnState;
  #now = 0;

  constructor(nodeId: string, identity: RotatableIdentity | undefined, incarnation = 1n) {
    this.#own = new OwnState({
      node: { id: nodeId, name: "ghost", ip: "127.0.0.1" },
      agentVersion: "test",
      incarnation,
      ...(identity !== undefined && { signer: new IdentitySigner(identity) }),
    });
  }

  /** Everything, when it runs these. */
  state(...ids: string[]): StateUpdate {
    this.#now += 100_000;
    const time = { steadyMs: this.#now, wallMs: this.#now };
    this.#own.update(local(ids.map((id) => workload(id))), time);
    return this.#own.whole();
  }
}

/** The same with its hash as it should be, so that nothing but the signature is wrong. */
function rehashed(update: StateUpdate, signer?: IdentitySigner): StateUpdate {
  const state = update.state!;
  const digests = new Map(state.workloads.map((each) => [each.id, workloadDigest(each)]));
  const root = stateRoot(headerDigest(state), digests);
  const stateSignature = signer?.sign(signedBytes(root, state.tombstones)) ?? state.stateSignature;
  return create(StateUpdateSchema, { ...update, hash: rootHash(root), state: { ...state, stateSignature } });
}

function withState(update: StateUpdate, change: Record<string, unknown>): StateUpdate {
  const state = create(NodeStateResponseSchema, { ...update.state!, ...change });
  return create(StateUpdateSchema, { ...update, state });
}

Deno.test("states that are forged, replayed, re-keyed or changed by a bit are refused, where genuine ones are taken", async (t) => {
  await using cluster = await startNodes(["n1", "n2"]);
  const [n1, n2] = cluster.nodes;
  const identity = memoryIdentity();
  const { nodeId } = identity;
  await using ghost = await joinAs(n1, "ghost", { [TAG.protocol]: PROTOCOL_VERSION, [TAG.id]: nodeId });
  const statements = new Statements(nodeId, identity);
  let counter = 0;
  const say = (update: StateUpdate) => {
    // Gossip passes on what it has seen only once.
    ghost.userEvent(GOSSIP.stateDelta, toBinary(StateUpdateSchema, update));
    ghost.userEvent(`after-${++counter}`, "");
  };
  const seen = new Map(cluster.nodes.map((node) => [node.name, new Set<string>()]));
  for (const { name, running } of cluster.nodes) {
    running.cluster.membership.serf.listen((event) => {
      if (event.kind === "user") seen.get(name)!.add(event.name);
    });
  }
  /** All nodes have heard all that was said. */
  const heard = () =>
    until("all have heard it", () => {
      return [...seen.values()].every((events) => events.has(`after-${counter}`));
    });
  const told = ({ running: { cluster: { core } } }: TestNode) => {
    const node = core.nodes().find(({ id }) => id === nodeId)!;
    const ids = core.list().filter((copy) => copy.nodeId === nodeId).map(({ workload: { id } }) => id);
    return { ids: ids.sort(), isVerified: node.isVerified, version: node.header?.version };
  };
  /** Says it, and that nobody believes it. */
  const isRefused = async (what: string, update: StateUpdate) => {
    const before = [n1, n2].map(told);
    say(update);
    await heard();
    assert.deepEqual([n1, n2].map(told), before, what);
  };

  const first = statements.state(IDS.genuine);
  await t.step("a genuine state is taken, as verified", async () => {
    say(first);
    await until("both know it", () => [n1, n2].every((node) => told(node).isVerified));
    assert.deepEqual(told(n2).ids, [IDS.genuine]);
  });

  await t.step("a forged one is not: by another key, under another's id, or with no signature", async () => {
    const stranger = memoryIdentity();
    const next = withState(statements.state(IDS.genuine, IDS.forged), {});
    await isRefused("another's signature", rehashed(next, new IdentitySigner(stranger)));
    const { publicKey, rotations } = new IdentitySigner(stranger);
    const rekeyed = withState(next, { publicKey, rotations });
    await isRefused("another's key and signature", rehashed(rekeyed, new IdentitySigner(stranger)));
    await stranger.rotate(1_000);
    const rotated = withState(next, new IdentitySigner(stranger) as never);
    await isRefused("a rotation from elsewhere", rehashed(rotated, new IdentitySigner(stranger)));
    await isRefused("no signature", withState(next, { stateSignature: "" }));
    const bare = new Statements(nodeId, undefined, 2n).state(IDS.forged);
    await isRefused("nothing signed at all", bare);
  });

  await t.step("one changed by any bit is not, with its hash made to fit or not", async () => {
    const next = statements.state(IDS.genuine, IDS.later);
    const { state } = next;
    const flips: [string, StateUpdate][] = [];
    for (const [key, value] of Object.entries(state!)) {
      if (key.startsWith("$")) continue;
      if (typeof value === "bigint") flips.push([key, withState(next, { [key]: value ^ 1n })]);
      if (typeof value === "boolean") flips.push([key, withState(next, { [key]: !value })]);
      if (typeof value === "string" && value !== "") {
        flips.push([
          key,
          withState(next, { [key]: `${value.slice(0, -1)}${value.endsWith("x") ? "y" : "x"}` }),
        ]);
      }
      if (value instanceof Uint8Array && value.length > 0) {
        flips.push([key, withState(next, { [key]: value.with(0, value[0] ^ 1) })]);
      }
    }
    const [one, ...rest] = state!.workloads;
    const bytes = toBinary(WorkloadStateSchema, one);
    for (let i = 0; i < bytes.length; i++) {
      const flipped = bytes.with(i, bytes[i] ^ 1);
      try {
        const other = fromBinary(WorkloadStateSchema, flipped);
        // Some flips change how it is written, and nothing of what it says.
        if (equals(WorkloadStateSchema, other, one)) continue;
        flips.push([`byte ${i} of a workload`, withState(next, { workloads: [other, ...rest] })]);
      } catch {
        // It can be read no more.
      }
    }
    const tombstone = create(TombstoneSchema, { id: IDS.genuine, generation: 9n });
    flips.push(["a tombstone", withState(next, { tombstones: [tombstone] })]);
    flips.push(["a workload less", withState(next, { workloads: rest })]);
    assert.ok(flips.length > 30, `${flips.length}`);
    for (const [what, update] of flips) {
      await isRefused(what, update);
      await isRefused(`${what}, rehashed`, rehashed(update));
    }
    say(next);
    await until(
      "the genuine one is taken",
      () => [n1, n2].every((node) => told(node).ids.includes(IDS.later)),
    );
  });

  await t.step("an older one said again is not", async () => {
    await isRefused("a replay", first);
    const inAnotherName = withState(first, { incarnation: 9n });
    await isRefused("a replay as of a newer start", rehashed(inAnotherName));
  });

  await t.step("a rotated key is followed; after that the old key says nothing any more", async () => {
    const old = statements.state(IDS.genuine);
    const copy = {
      ...identity,
      publicKey: identity.publicKey,
      rotations: identity.rotations,
      sign: identity.sign,
    };
    await identity.rotate(2_000);
    const { version } = told(n1);
    say(statements.state(IDS.later));
    await until("the state by the new key is taken", () => {
      return [n1, n2].every((node) => told(node).version! > version! && told(node).ids.join() === IDS.later);
    });
    await isRefused("by the old key", old);
    assert.notDeepEqual(copy.publicKey, identity.publicKey);
  });

  for (const { running } of cluster.nodes) assert.ok(running.cluster.core.sizes.refused > 0);
});

Deno.test("nodes with and without signatures, and a node of the original's kind, live in one cluster; one that requires them ignores the others", async () => {
  await using cluster = await startNodes(["n1", "n2", "strict"], (name) => ({
    cluster: { requireSigned: name === "strict" },
  }));
  const [n1, n2, strict] = cluster.nodes;
  const views = ({ running: { cluster: { core } } }: TestNode) =>
    new Map(
      core.nodes().map(({ name, header, isVerified }) => [
        name,
        header === undefined ? "unknown" : isVerified ? "verified" : "unverified",
      ]),
    );
  const bareId = crypto.randomUUID();
  await using bare = await joinAs(n1, "bare", { [TAG.protocol]: PROTOCOL_VERSION, [TAG.id]: bareId });
  await using go = await joinAs(n1, "go", {});
  await until("all are members everywhere", () => {
    return cluster.nodes.every(({ running }) => running.cluster.core.nodes().length === 5);
  });
  const unsigned = new Statements(bareId, undefined).state(IDS.genuine);
  bare.userEvent(GOSSIP.stateDelta, toBinary(StateUpdateSchema, unsigned));
  const uuid = crypto.randomUUID();
  for (const payload of encodeFragments({ name: "go", uuid, workloads: [workload(IDS.later)] })) {
    go.userEvent(GOSSIP.stateBroadcast, payload);
  }
  go.userEvent("after", "");
  await until("both states are known, as unverified", () => {
    return [n1, n2].every((node) => ["bare", "go"].every((name) => views(node).get(name) === "unverified"));
  });
  for (const node of cluster.nodes) {
    for (const name of ["n1", "n2", "strict"]) assert.equal(views(node).get(name), "verified", name);
  }
  const listed = ({ running }: TestNode) =>
    running.cluster.core.list().map(({ workload: { id } }) => id).sort();
  assert.deepEqual([n1, n2].map(listed), [[IDS.genuine, IDS.later], [IDS.genuine, IDS.later]]);
  await until("they were refused where signatures are required", () => {
    return strict.running.cluster.core.sizes.refused >= 2;
  });
  assert.deepEqual(["bare", "go"].map((name) => views(strict).get(name)), ["unknown", "unknown"]);
  assert.deepEqual(listed(strict), []);
});
