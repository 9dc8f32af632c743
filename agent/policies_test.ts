import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { PolicyQuerySchema } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { silentLog } from "../runtime/log.ts";
import { openPolicies, policyQueries } from "./policies.ts";
import { candidate } from "./policy/testing.ts";
import { parseSpawn } from "./workloads/parse_spawn.ts";
import { request } from "./workloads/testing.ts";

Deno.test("a node answers policy queries by the policy in force, and by the new one after a reload", async () => {
  const dir = await Deno.makeTempDir({ prefix: "hc-policies-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const file = `${dir}/cluster.json`;
  const write = (maxCores: number) =>
    Deno.writeTextFile(file, `{"name":"p","mode":"enforce","permissions":{"max_cores":${maxCores}}}`);
  await write(1);
  let reload = () => {};
  const changed = Promise.withResolvers<void>();
  const candidates = () => [candidate(), candidate({ name: "n2" })];
  const policies = stack.use(
    await openPolicies({ clusterPolicyFile: file, dataDir: dir }, {
      nodeId: "id-n1",
      candidates,
      log: silentLog,
      observe: () => {},
      onReload: (listener) => {
        reload = listener;
        return () => {};
      },
    }),
  );
  const answer = policyQueries({
    node: { id: "id-n1", name: "n1" },
    gate: policies.gate,
    candidates,
    find: (id) => Promise.resolve(id === "web" ? { id, request: request({ cores: 2 }) } : undefined),
    parse: (each) => parseSpawn(each, { nodeName: "n1", reservedPorts: new Set() }),
  });
  const decision = async () => {
    const query = create(PolicyQuerySchema, { policyType: "SCHEDULING", workloadId: "web" });
    const { wrappedMessage } = await answer(query);
    return anyUnpack(wrappedMessage!, PolicyQuerySchema)!.context;
  };
  assert.equal((await decision()).decision, "REFUSE");
  assert.equal((await decision()).node, "n1");
  policies.store.onChange(changed.resolve);
  await write(2);
  reload();
  await changed.promise;
  assert.equal((await decision()).decision, "ADMIT");
  assert.deepEqual(
    policies.gate.admit(
      undefined,
      parseSpawn(request({ cores: 2 }), {
        nodeName: "n1",
        reservedPorts: new Set(),
      }),
    ),
    {},
  );
});
