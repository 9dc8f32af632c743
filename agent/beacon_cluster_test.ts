import assert from "node:assert/strict";
import { clone, create, toBinary } from "@bufbuild/protobuf";
import {
  NodeStateResponseSchema,
  VmSpawnRequestSchema,
} from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { StateUpdateSchema } from "../proto/gen/hypercore/v1/peer_pb.ts";
import type { NodeIdentity, SigningContext } from "./beacon/identity.ts";
import { headerDigest, rootHash, signedBytes, stateRoot } from "./cluster/state_digest.ts";
import { GOSSIP } from "./cluster/tags.ts";
import { verifyBeacon } from "./beacon/metadata.ts";
import { DEEDS } from "./beacon/reputation.ts";
import { memoryIdentity } from "./beacon/testing.ts";
import { startNodes, type TestNode, until } from "./testing.ts";

const ATTEST = "hypercore.v1.BeaconService/Attest";

/** Asks `by` for an attestation of another node. */
async function ask(by: TestNode, body: Record<string, string>) {
  const answer = await by.call(ATTEST, body);
  return { reason: "", ...answer } as {
    nodeName: string;
    nodeId: string;
    verified?: boolean;
    reason: string;
    statement?: string;
    remark?: string;
  };
}

async function metricsOf({ running }: TestNode): Promise<string> {
  return await (await fetch(`http://127.0.0.1:${running.httpAddress.port}/metrics`)).text();
}

Deno.test("nodes tell each other signed beacons, and attest what they are asked for", async (t) => {
  const prices: Record<string, number> = { n1: 0.1, n2: 0.2, n3: 0.3 };
  const registrations: string[] = [];
  await using registry = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    if (request.method === "POST") registrations.push(await request.text());
    return new Response("{}");
  });
  const base = `http://127.0.0.1:${registry.addr.port}`;
  await using cluster = await startNodes(["n1", "n2", "n3"], (name) => ({
    config: {
      beacon: {
        pricePerGb: prices[name],
        reputation: 0.7,
        ...(name === "n2" && { endpoint: { kind: "http", base } }),
      },
    },
  }));
  const [n1, n2, n3] = cluster.nodes;

  await t.step("every state carries its node's beacon, and the line to it is measured", async () => {
    const headers = new Map(n1.running.cluster.core.nodes().map(({ id, header }) => [id, header]));
    for (const { name, identity } of cluster.nodes) {
      const { beacon } = headers.get(identity.nodeId)!;
      assert.ok(verifyBeacon(beacon!, identity.publicKey), name);
      assert.equal(beacon!.pricePerGb, prices[name]);
      assert.ok(beacon!.nodeCapabilities.includes("runtime:runc"));
    }
    await until("probes have measured the lines", async () => {
      const { beacons } = await n1.call("hypercore.v1.BeaconService/List", {}) as {
        beacons: Record<string, unknown>[];
      };
      assert.deepEqual(beacons.map(({ nodeName }) => nodeName).sort(), ["n1", "n2", "n3"]);
      const others = beacons.filter(({ isSelf }) => !isSelf);
      return others.every(({ latencyMs, jitterMs, packetLoss, ownWeight, reputation, verified }) => {
        const isMeasured = [latencyMs, jitterMs, packetLoss].every((value) => typeof value === "number");
        return isMeasured && Number(ownWeight) > 0 && Number(reputation) > 0.7 && verified === true;
      });
    });
    const candidates = n1.running.cluster.policies.candidates();
    assert.ok(candidates.every(({ latencyMs, reputation }) => latencyMs! >= 0 && reputation! >= 0.7));
  });

  await t.step("identity, state and workload are attested", async () => {
    const identity = await ask(n1, { node: "n2" });
    assert.equal(identity.verified, true, identity.reason);
    const { name, nonce, type } = JSON.parse(identity.statement!);
    assert.deepEqual([name, type, identity.nodeId], ["n2", "NODE_IDENTITY", n2.identity.nodeId]);
    const again = await ask(n1, { node: n2.identity.nodeId });
    assert.notEqual(JSON.parse(again.statement!).nonce, nonce);
    await until("the state that it attests is the one that is known", async () => {
      const state = await ask(n1, { node: "n2", type: "STATE_HASH" });
      assert.equal(state.verified, true, state.reason);
      return state.remark === "the same state is known here";
    });
    const request = create(VmSpawnRequestSchema, { imageRef: "web:1", node: "n3" });
    const { id } = await n1.running.cluster.calls.spawn(request);
    await until("it is known where it runs", () => n1.running.cluster.core.find(id).kind === "found");
    await until("it attests the newest proof", async () => {
      const workload = await ask(n1, { workload: id });
      assert.equal(workload.verified, true, workload.reason);
      const stated = JSON.parse(workload.statement!);
      assert.deepEqual([workload.nodeName, stated.workload, stated.image], ["n3", id, "web:1"]);
      return /^[0-9a-f]{64}$/.test(stated.proof_hash);
    });
    const elsewhere = await ask(n1, { node: "n2", workload: id });
    assert.deepEqual([elsewhere.verified, elsewhere.statement], [undefined, undefined]);
    assert.match(elsewhere.reason, /it refused: .*does not run here/);
    assert.equal((await ask(n1, { node: "n1" })).verified, true);
  });

  await t.step(
    "a node that signs with another key than its own is refused, until it signs with its own",
    async () => {
      const { sign } = n2.identity;
      const forger = memoryIdentity();
      n2.identity.sign = (context: SigningContext, bytes: Uint8Array) => forger.sign(context, bytes);
      try {
        const forged = await ask(n1, { node: "n2" });
        assert.deepEqual([forged.verified, forged.reason], [undefined, "its signature is not good"]);
      } finally {
        n2.identity.sign = sign;
      }
      assert.equal((await ask(n1, { node: "n2" })).verified, true);
    },
  );

  await t.step("after a rotation it attests with the new key", async () => {
    await n2.call("hypercore.v1.IdentityService/Rotate", {});
    await until("the others know the new key", async () => (await ask(n1, { node: "n2" })).verified === true);
    await until("its beacon is signed by it", () => {
      const { header } = n3.running.cluster.core.nodes().find(({ name }) => name === "n2")!;
      return verifyBeacon(header!.beacon!, n2.identity.publicKey);
    });
  });

  await t.step(
    "a state forged in a node's name is dropped, counted and told; signed by its key it is taken",
    async () => {
      const { nodeId } = n2.identity;
      const known = () => n1.running.cluster.core.nodes().find(({ id }) => id === nodeId)!.header!;
      const broadcast = (signer: Pick<NodeIdentity, "sign">) => {
        const state = clone(NodeStateResponseSchema, n2.running.cluster.core.ownUpdate().state!);
        // Beyond all that the node may say of itself meanwhile.
        Object.assign(state, { version: state.version + 1_000n, tags: { made: "up" }, stateSignature: "" });
        const root = stateRoot(headerDigest(state), new Map());
        const bytes = signedBytes(root, state.tombstones);
        state.stateSignature = signer.sign("hypercore/state/1", bytes).toBase64();
        const update = create(StateUpdateSchema, { state, hash: rootHash(root) });
        n3.running.cluster.membership.broadcast(GOSSIP.stateDelta, toBinary(StateUpdateSchema, update));
      };
      const taken: string[] = [];
      const { core } = n1.running.cluster;
      const userEvent = core.userEvent.bind(core);
      core.userEvent = (nowMs, name, payload) => {
        const effects = userEvent(nowMs, name, payload);
        if (known().tags.made === "up") taken.push(name);
        return effects;
      };
      const refused = async () =>
        Number(/states_refused_total\{via="event"\} (\d+)/.exec(await metricsOf(n1))![1]);
      const before = await refused();
      const notes: string[] = [];
      const end = new AbortController();
      const watching = (async () => {
        for await (const { event } of n1.running.cluster.events.watch(end.signal)) {
          if (event?.case === "note") notes.push(event.value as string);
        }
      })();
      const { incarnation } = n2.running.cluster.core.version;
      broadcast(memoryIdentity());
      await until("it is refused", async () => await refused() > before);
      await until(
        "it is told",
        () => notes.some((note) => /Cannot take its state: its signature/.test(note)),
      );
      assert.deepEqual([taken, n2.running.cluster.core.version.incarnation], [[], incarnation]);
      broadcast(n2.identity);
      // But for a moment: the node soon hears of what it did not say, and begins a new incarnation.
      await until("it is taken", () => taken.length > 0);
      await until("the node says anew what is", () => known().tags.made === undefined);
      assert.equal(n2.running.cluster.core.version.incarnation, incarnation + 1n);
      end.abort();
      await watching;
      // Whoever forged it: it is not held against the node.
      const { beacons } = await n1.call("hypercore.v1.BeaconService/List", {}) as {
        beacons: { nodeName: string; ownScore: number; ownWeight: number }[];
      };
      const { ownScore, ownWeight } = beacons.find(({ nodeName }) => nodeName === "n2")!;
      // Some probes may have failed; they count for much less.
      const { bad } = DEEDS["state-forged"] as { bad: number };
      assert.ok((1 - ownScore) * ownWeight < bad / 2, `${ownScore} of ${ownWeight}`);
    },
  );

  await t.step("who is not there or is asked for nonsense is said", async () => {
    await assert.rejects(ask(n1, { node: "n9" }), /not_found: Cannot find node "n9"/);
    await assert.rejects(ask(n1, { node: "n2", type: "X" }), /invalid_argument: Cannot attest "X"/);
    await assert.rejects(ask(n1, { node: "n2", type: "WORKLOAD" }), /go together/);
  });

  await t.step("a registry knows who was told of it", async () => {
    await until("it is registered", () => registrations.length > 0);
    assert.equal(JSON.parse(JSON.parse(registrations[0]).registration).node, n2.identity.nodeId);
    await until("it is shown", async () => {
      return (await n2.call("hypercore.v1.BeaconService/List", {})).registry === "connected";
    });
    assert.equal((await n1.call("hypercore.v1.BeaconService/List", {})).registry, "standalone");
    assert.match(await metricsOf(n2), /ibrl_beacon_connected 1/);
  });

  const [asker, asked] = [await metricsOf(n1), await metricsOf(n2)];
  assert.match(asker, /ibrl_beacon_attestations_total\{type="NODE_IDENTITY",result="verified"\} [4-9]/);
  assert.match(asker, /ibrl_beacon_attestations_total\{type="NODE_IDENTITY",result="refused"\} [1-9]/);
  assert.match(asker, /ibrl_beacon_attestation_latency_ms_count [1-9]/);
  assert.match(asker, /ibrl_beacon_connected 0/);
  assert.match(asked, /ibrl_beacon_attestations_total\{type="STATE_HASH",result="signed"\} [1-9]/);
  assert.match(asked, /ibrl_beacon_attestations_total\{type="WORKLOAD",result="answer-refused"\} 1/);
});
