import assert from "node:assert/strict";
import { MAX_SHARED } from "./limits.ts";
import { Sharing } from "./sharing.ts";
import { spawnRequest, workload } from "./testing.ts";

Deno.test("equal parts of workloads are one object, and nothing is lost by it", () => {
  const sharing = new Sharing();
  const request = () =>
    spawnRequest({ ports: { 443: 8443, 80: 8080 }, env: ["A=***"], args: ["x", "y"], constraints: ["a=b"] });
  const [one, two] = ["1", "2"].map((id) => sharing.share(workload(id, { sourceRequest: request() })));
  assert.equal(one.sourceRequest!.ports, two.sourceRequest!.ports);
  assert.equal(one.sourceRequest!.args, two.sourceRequest!.args);
  assert.deepEqual(one.sourceRequest, request());
  const other = sharing.share(workload("3", { sourceRequest: spawnRequest({ ports: { 80: 1 } }) }));
  assert.deepEqual(other.sourceRequest!.ports, { 80: 1 });
  assert.deepEqual(sharing.share(workload("4", { sourceRequest: undefined })).sourceRequest, undefined);
});

Deno.test("what is kept to be shared is bounded", () => {
  const sharing = new Sharing();
  for (let i = 0; i < 2 * MAX_SHARED + 10; i++) {
    const sourceRequest = spawnRequest({ imageRef: `image-${i}`, args: [`${i}`], ports: { [i + 1]: 80 } });
    sharing.share(workload("w", { sourceRequest }));
    assert.ok(sharing.size <= 3 * MAX_SHARED);
  }
});
