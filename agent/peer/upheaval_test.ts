import assert from "node:assert/strict";
import { seededRandom } from "../../gossip/mod.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { startPeer, type TestPeer } from "./testing.ts";

const ROUNDS = 12;
const WORKERS = 8;
const CALLS = 5;
const DATA = new Uint8Array(32 << 10);

// Deno's HTTP/2 ends the process where a session is handled in the wrong order; nothing that an operator or a bad network
// does may bring that about.
Deno.test("calls of all kinds amid nodes that stop, connections that are cut and callers that leave end one way or the other", async () => {
  const random = seededRandom(7);
  const chance = (probability: number) => random.float() < probability;
  let done = 0;
  const one = async (peer: TestPeer) => {
    const leave = new AbortController();
    const timer = chance(0.3) ? setTimeout(() => leave.abort(), random.float() * 20) : undefined;
    const workloads = peer.peers.client(WorkloadService, "b"), options = { signal: leave.signal };
    try {
      const kind = Math.floor(random.float() * 4);
      if (kind < 2) await peer.peers.client(PeerService, "b").cordon({}, options);
      else if (kind === 2) {
        let left = random.float() * 80;
        for await (const _ of workloads.streamLogs({}, options)) if (--left < 0) leave.abort();
      } else {
        const input = async function* () {
          for (let n = 0; n < 10; n++) {
            await pause(random.float() * 3);
            yield { request: { case: "stdin" as const, value: DATA } };
          }
        };
        for await (const _ of workloads.exec(input(), options));
      }
    } catch (error) {
      assert(error instanceof RuntimeError, String(error));
      assert(["unavailable", "canceled", "timeout"].includes(error.code), `${error.code}: ${error.message}`);
    } finally {
      clearTimeout(timer);
      done++;
    }
  };
  for (let round = 0; round < ROUNDS; round++) {
    const directory = new Map();
    const b = await startPeer({
      nodeId: "b",
      directory,
      limits: { serverPingMs: 5, connectionsPerPeer: 1 },
      routes(router) {
        router.service(PeerService, {
          async cordon() {
            if (chance(0.3)) await pause(random.float() * 20);
            return {};
          },
        });
        router.service(WorkloadService, {
          async *streamLogs(_request, { signal }) {
            for (let n = 0; n < 50 && !signal.aborted; n++) {
              if (chance(0.1)) await pause(1);
              yield { data: DATA };
            }
          },
          async *exec(requests) {
            for await (const _ of requests) yield { response: { case: "stdout", value: DATA } };
          },
        });
      },
    });
    // Both say that they are "a", so that each cuts the other off.
    const limits = { clientPingMs: 5, clientIdleMs: 10, callMs: 2_000 };
    const callers = await Promise.all([1, 2].map(() => startPeer({ nodeId: "a", directory, limits })));
    const work: PromiseLike<unknown>[] = Array.from({ length: WORKERS }, async (_, n) => {
      for (let call = 0; call < CALLS; call++) await one(callers[n % 2]);
    });
    await (chance(0.5) ? Promise.all(work) : pause(random.float() * 60));
    const nodes = chance(0.5) ? [b, ...callers] : [...callers, b];
    for (const node of nodes) {
      work.push(node[Symbol.asyncDispose]());
      if (chance(0.5)) await pause(random.float() * 5);
    }
    await Promise.all(work);
    assert.equal(b.server.connections, 0);
    assert.deepEqual(callers.map(({ peers }) => peers.connections), [0, 0]);
  }
  assert.equal(done, ROUNDS * WORKERS * CALLS);
});

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
