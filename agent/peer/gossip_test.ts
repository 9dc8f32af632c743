import assert from "node:assert/strict";
import type { ConnectRouter } from "@connectrpc/connect";
import { createSerf, type Serf } from "../../gossip/mod.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { startPeer, TEST_KEY, type TestPeer, until } from "./testing.ts";

const ROUNDS = 20;
const CALLS = 10;

Deno.test("members gossip and call each other on the same port, under load, encrypted", async () => {
  const directory = new Map();
  const callers: string[] = [];
  const routes = (router: ConnectRouter) => {
    router.service(PeerService, {
      fetchRequest({ id }) {
        callers.push(id);
        return { request: { imageRef: id.repeat(1_000) } };
      },
    });
  };
  await using stack = new AsyncDisposableStack();
  const members: { peer: TestPeer; serf: Serf }[] = [];
  for (const nodeId of ["a", "b", "c"]) {
    const peer = await startPeer({ nodeId, directory, routes });
    // The port goes last: it ends what is left, gossip's streams too.
    stack.use(peer);
    const bind = { host: "127.0.0.1", port: peer.address.port };
    const { transport } = peer.port;
    const serf = stack.use(
      await createSerf({ name: nodeId, bind, transport, keys: [TEST_KEY], profile: "local" }),
    );
    members.push({ peer, serf });
  }
  const seed = `127.0.0.1:${members[0].peer.address.port}`;
  // Each join is a stream on the port that also takes the calls; each answer is long.
  await Promise.all(members.map(async ({ peer, serf }) => {
    for (let round = 0; round < ROUNDS; round++) {
      if (serf.name !== "a") await serf.join([seed]);
      const calls = ["a", "b", "c"].filter((nodeId) => nodeId !== serf.name).flatMap((nodeId) =>
        Array.from({ length: CALLS }, async () => {
          const { request } = await peer.peers.client(PeerService, nodeId).fetchRequest({ id: serf.name });
          assert.equal(request?.imageRef, serf.name.repeat(1_000));
        })
      );
      await Promise.all(calls);
    }
  }));
  assert.equal(callers.length, 3 * 2 * ROUNDS * CALLS);
  for (const { peer, serf } of members) {
    await until(() => serf.members().map(({ name }) => name).sort().join() === "a,b,c");
    assert.deepEqual(peer.seen.filter(({ kind }) => kind === "refused" || kind === "dial-failed"), []);
  }
});
