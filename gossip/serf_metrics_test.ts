import assert from "node:assert/strict";
import { createSerf, type MetricsRegistry } from "./mod.ts";

Deno.test("every figure is registered once under a valid name, and moves with what happens", async () => {
  const figures = new Map<string, () => number>();
  const register = (name: string, help: string, read: () => number) => {
    assert.match(name, /^hypercore_gossip_[a-z_]+$/);
    assert.ok(help.length > 0 && !figures.has(name), name);
    figures.set(name, read);
  };
  const metrics: MetricsRegistry = {
    counter: (name, help, read) => {
      assert.match(name, /_total$/);
      register(name, help, read);
    },
    gauge: (name, help, read) => register(name, help, read),
  };
  const bind = { host: "127.0.0.1", port: 0 };
  await using a = await createSerf({ name: "a", bind, profile: "lan", metrics });
  await using b = await createSerf({ name: "b", bind, profile: "lan" });
  await b.join([`127.0.0.1:${a.local.port}`]);
  b.userEvent("deploy");
  assert.deepEqual((await b.reachability({ timeoutMs: 10_000 })).missing, []);
  const read = (name: string) => figures.get(`hypercore_gossip_${name}`)!();
  assert.deepEqual([read("members_alive"), read("push_pulls_total"), read("user_events_total")], [2, 1, 1]);
  assert.ok(read("queries_total") >= 1 && read("packets_received_total") > 0 && read("bytes_sent_total") > 0);
  for (const [name, value] of figures) assert.ok(Number.isFinite(value()) && value() >= 0, name);
});
