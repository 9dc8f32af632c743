import assert from "node:assert/strict";
import { create, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { encodeClusterMessage, unwrap } from "../../agent/control/cluster_messages.ts";
import { startNodes, until } from "../../agent/testing.ts";
import vectors from "../../gossip/testdata/vectors.json" with { type: "json" };
import {
  ClusterEvent,
  ErrorResponseSchema,
  NodeSchema,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
  VmStopRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { GoNode, listed } from "./go_node.ts";

const SPAWN = "cluster.services.api.ClusterService/Spawn";
const STOP = "cluster.services.api.ClusterService/Stop";

function message<S extends DescMessage>(event: ClusterEvent, schema: S, fields: MessageInitShape<S>) {
  return encodeClusterMessage(event, schema, create(schema, fields));
}

function captured(name: string): Uint8Array {
  return Uint8Array.fromHex(vectors.find((vector) => vector.name === name)!.hex!);
}

Deno.test("rule 9a: a Go node and ours in one cluster: spawn and stop by query, both ways, and each other's states", async (t) => {
  await using cluster = await startNodes(["n1", "n2"]);
  const [n1, n2] = cluster.nodes;
  await using go = await GoNode.join(n1, "go");
  const states = { ours: "", theirs: "" };

  await t.step("a dry run by query is answered with an offer and starts nothing", async () => {
    const answer = await go.ask(
      "n1",
      message(ClusterEvent.SPAWN, VmSpawnRequestSchema, {
        cores: 1,
        memory: 64,
        imageRef: "web:1",
        dryRun: true,
      }),
    );
    assert.equal(answer.event, ClusterEvent.SPAWN);
    assert.equal(unwrap(answer, VmSpawnResponseSchema)?.id, "");
    assert.deepEqual(listed(n1).size, 0);
  });

  await t.step("a captured spawn query starts the workload, which every node lists", async () => {
    const answer = await go.ask("n1", captured("hypercore-clustermessage-spawn"));
    const { id, url } = unwrap(answer, VmSpawnResponseSchema)!;
    assert.match(id, /^[0-9a-f]{12}$/);
    assert.match(url, new RegExp(`${id}\\.example\\.com`));
    states.ours = id;
    await until("n2 lists it", () => listed(n2).get(id) === "n1");
    assert.deepEqual((await n1.engine.list()).map((each) => each.id), [id]);
  });

  await t.step("the Go node reads in fragments what runs on ours", async () => {
    await until("a fragment names it", () => go.told("n1")?.includes(states.ours) ?? false);
    const fragment = go.fragments.findLast(({ node }) => node?.id === "n1")!;
    const { imageRef, ports } = fragment.workloads[0].sourceRequest!;
    assert.deepEqual([imageRef, ports], ["docker.io/library/nginx:latest", { 8080: 80 }]);
  });

  await t.step("what cannot be run is refused by query with the reason", async () => {
    const huge = await go.ask(
      "n1",
      message(ClusterEvent.SPAWN, VmSpawnRequestSchema, { cores: 1, memory: 1 << 30, imageRef: "web:1" }),
    );
    assert.equal(huge.event, ClusterEvent.ERROR);
    assert.match(unwrap(huge, ErrorResponseSchema)!.error, /memory/);
    const bad = await go.ask("n1", message(ClusterEvent.SPAWN, VmStopRequestSchema, { id: "x" }));
    assert.match(unwrap(bad, ErrorResponseSchema)!.error, /its content is not what its kind says/);
    const garbage = await go.ask("n1", Uint8Array.of(0xff, 0xff, 0xff));
    assert.match(unwrap(garbage, ErrorResponseSchema)!.error, /Cannot read a cluster message/);
  });

  await t.step("a stop by query stops it everywhere, and the fragments say so", async () => {
    const stop = message(ClusterEvent.STOP, VmStopRequestSchema, { id: states.ours });
    const answer = await go.ask("n1", stop);
    assert.equal(answer.event, ClusterEvent.STOP);
    assert.notEqual(unwrap(answer, NodeSchema), undefined);
    await until("n2 lists it no more", () => !listed(n2).has(states.ours));
    await until("the Go node is told", () => go.told("n1")?.length === 0);
  });

  await t.step("a Go node's fragments are listed by ours, and what it drops goes", async () => {
    for (let n = 1; n <= 25; n++) {
      go.workloads.set(
        `many-${n}`,
        create(VmSpawnRequestSchema, { imageRef: "web:1", cores: 1, memory: 64 }),
      );
    }
    go.broadcast();
    const names = [...go.workloads.keys()];
    await until("n1 and n2 list all", () => {
      return [n1, n2].every((node) => names.every((id) => listed(node).get(id) === "go"));
    });
    go.workloads.clear();
    go.broadcast();
    await until("n2 lists none", () => listed(n2).size === 0);
  });

  await t.step(
    "a workload placed on the Go node goes there by query, with what it needs, and is listed",
    async () => {
      const answer = await n1.call(SPAWN, {
        imageRef: "web:2",
        node: "go",
        cores: 1,
        memory: 64,
        env: ["A=b"],
        ports: { 8080: 80 },
      });
      assert.deepEqual([answer.id, answer.node], ["go-1", "go"]);
      states.theirs = "go-1";
      assert.deepEqual(go.asked.map(({ dryRun }) => dryRun), [true, false]);
      const { imageRef, env, ports } = go.workloads.get("go-1")!;
      assert.deepEqual([imageRef, env, ports], ["web:2", ["A=b"], { 8080: 80 }]);
      await until("n2 lists it", () => listed(n2).get("go-1") === "go");
    },
  );

  await t.step("a refusal of the Go node reaches the caller with its reason", async () => {
    go.refusal = "no room at all";
    await assert.rejects(n1.call(SPAWN, { imageRef: "web:3", node: "go" }), /go.*no room at all/s);
    go.refusal = "";
  });

  await t.step("a workload of the Go node is stopped through any of ours by query", async () => {
    assert.equal((await n2.call(STOP, { id: states.theirs })).id, "go");
    assert.equal(go.workloads.size, 0);
    await until("n1 lists it no more", () => !listed(n1).has(states.theirs));
  });
});
