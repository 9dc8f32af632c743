import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { VmSpawnRequestSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { EntrustRequestSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { ENTRUSTED_MS, EntrustedRequests } from "./entrusted.ts";

const request = create(VmSpawnRequestSchema, { imageRef: "web:1", env: ["SECRET=x"] });
const entrusted = (id: string) => create(EntrustRequestSchema, { id, ownerNodeId: "n", request });

Deno.test("a request held in trust outlives the agent, for its owner's eyes alone, until it is dropped", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const options = { nowMs: Date.now(), log: silentLog };
    const first = await EntrustedRequests.open(`${dir}/trust`, options);
    await first.keep(entrusted("0123456789ab"));
    const second = await EntrustedRequests.open(`${dir}/trust`, options);
    assert.deepEqual((await second.get("0123456789ab"))?.env, ["SECRET=x"]);
    assert.equal((await Deno.stat(`${dir}/trust/0123456789ab`)).mode! & 0o777, 0o600);
    await second.drop("0123456789ab");
    assert.equal(await second.get("0123456789ab"), undefined);
    await second.drop("0123456789ab");
    await second.keep(entrusted("0123456789ab"));
    const late = await EntrustedRequests.open(`${dir}/trust`, {
      ...options,
      nowMs: Date.now() + ENTRUSTED_MS + 1_000,
    });
    assert.equal(late.size, 0);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("nothing but a workload's request is kept in trust", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const kept = await EntrustedRequests.open(dir, { nowMs: Date.now(), log: silentLog });
    for (const id of ["", "../../etc/shadow", "0123456789aB"]) {
      await assert.rejects(kept.keep(entrusted(id)), /Cannot keep the request/);
    }
    await assert.rejects(kept.keep(create(EntrustRequestSchema, { id: "0123456789ab" })), /it is none/);
    assert.equal(kept.size, 0);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
