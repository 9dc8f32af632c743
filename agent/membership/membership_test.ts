import assert from "node:assert/strict";
import { createSerf, type Serf } from "../../gossip/mod.ts";
import { silentLog } from "../../runtime/log.ts";
import { Membership } from "./membership.ts";

Deno.test("a node whose name the cluster gave to another says so once, asks for its end and takes leave of nobody", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const errors: string[] = [];
    await using other = await serf("other");
    await using holder = await serf("same");
    await holder.join([`127.0.0.1:${other.local.port}`]);
    await using late = await Membership.open({
      name: "same",
      nodeId: "late",
      bind: { host: "127.0.0.1", port: 0 },
      profile: "lan",
      tags: {},
      keys: [],
      snapshotFile: `${dir}/snapshot`,
      log: { ...silentLog, error: (message) => errors.push(message) },
    });
    let losses = 0;
    const lost = new Promise<void>((resolve) => late.listen({ nameLost: () => resolve(void losses++) }));
    await late.join([`127.0.0.1:${other.local.port}`]);
    await lost;
    assert.equal(losses, 1);
    assert.equal(errors.filter((line) => line.includes("gave this node's name to another node")).length, 1);
    await late.leave();
    assert.equal(late.serf.member("same")?.status, "alive");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

function serf(name: string): Promise<Serf> {
  return createSerf({ name, bind: { host: "127.0.0.1", port: 0 }, profile: "lan" });
}
