import assert from "node:assert/strict";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { type CallOutcome, codeName, countCalls } from "./count_calls.ts";
import { translateErrors } from "./errors.ts";

Deno.test("each call is counted once with its outcome, a stream when it ends", async () => {
  const outcomes: CallOutcome[] = [];
  const transport = createRouterTransport(({ service }) => {
    service(ClusterService, {
      list: () => ({}),
      stop: () => Promise.reject(new RuntimeError("exhausted", "Cannot stop: too many at once")),
    });
    service(WorkloadService, {
      async *streamLogs({ id }) {
        yield { data: new Uint8Array(1) };
        if (id === "bad") throw new RuntimeError("not-found", "Cannot find it");
      },
    });
  }, { router: { interceptors: [countCalls((each) => outcomes.push(each)), translateErrors(silentLog)] } });
  const cluster = createClient(ClusterService, transport),
    workloads = createClient(WorkloadService, transport);
  await cluster.list({});
  await assert.rejects(
    cluster.stop({ id: "x" }),
    (error) => ConnectError.from(error).code === Code.ResourceExhausted,
  );
  for await (const _ of workloads.streamLogs({ id: "good" }));
  await assert.rejects(async () => {
    for await (const _ of workloads.streamLogs({ id: "bad" }));
  });
  assert.deepEqual(outcomes.map(({ method, code }) => `${method} ${code}`), [
    "ClusterService/List ok",
    "ClusterService/Stop resource_exhausted",
    "WorkloadService/StreamLogs ok",
    "WorkloadService/StreamLogs not_found",
  ]);
});

Deno.test("codes have the names of the protocols", () => {
  assert.equal(codeName(Code.ResourceExhausted), "resource_exhausted");
  assert.equal(codeName(Code.Internal), "internal");
});

Deno.test("a stream that its caller leaves is counted as canceled", async () => {
  const outcomes: CallOutcome[] = [];
  async function* endless() {
    for (;;) yield await Promise.resolve(1);
  }
  const request = { service: { typeName: "a.b.Logs" }, method: { name: "Follow" } };
  const call = countCalls((each) => outcomes.push(each))(() =>
    Promise.resolve({ stream: true, message: endless() } as never)
  );
  for await (const _ of (await call(request as never)).message as AsyncIterable<number>) break;
  assert.deepEqual(outcomes, [{ method: "Logs/Follow", code: "canceled" }]);
});
