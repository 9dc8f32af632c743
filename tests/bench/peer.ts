import http2 from "node:http2";
import type net from "node:net";
import { type ConnectRouter, createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { dialPeer, PROTOCOL } from "../../agent/peer/handshake/dial.ts";
import { derivePeerKeys } from "../../agent/peer/handshake/peer_keys.ts";
import { startPeer, TEST_KEY } from "../../agent/peer/testing.ts";
import { PeerService } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { machineFacts } from "./support/agent.ts";
import { median, quantile } from "./support/stats.ts";

const MIB = 1 << 20;
const CHUNK = new Uint8Array(64 << 10);
const STREAM_MIB = 64;

/** Calls between nodes, over their authenticated TLS and, by the same library, in the clear; both ends in one process. */
export async function peerBench({ rounds = 5, calls = 400, handshakes = 100 } = {}): Promise<string> {
  const routes = (router: ConnectRouter) => {
    router.service(PeerService, { cordon: () => ({}) });
    router.service(WorkloadService, {
      async *streamLogs() {
        for (let sent = 0; sent < STREAM_MIB * MIB; sent += CHUNK.length) {
          yield await Promise.resolve({ data: CHUNK });
        }
      },
    });
  };
  const directory = new Map();
  await using stack = new AsyncDisposableStack();
  const b = stack.use(await startPeer({ nodeId: "b", directory, routes }));
  const a = stack.use(await startPeer({ nodeId: "a", directory }));
  const plain = http2.createServer(connectNodeAdapter({ routes }));
  await new Promise<void>((resolve) => plain.listen(0, "127.0.0.1", resolve));
  const baseUrl = `http://127.0.0.1:${(plain.address() as net.AddressInfo).port}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const transport = createGrpcTransport({ baseUrl, sessionManager, acceptCompression: [] });
  stack.defer(() => {
    sessionManager.abort();
    plain.close();
  });
  const sides = {
    peer: { unary: a.peers.client(PeerService, "b"), stream: a.peers.client(WorkloadService, "b") },
    plain: { unary: createClient(PeerService, transport), stream: createClient(WorkloadService, transport) },
  };
  const unary = { peer: [] as number[], plain: [] as number[] };
  const rate = { peer: [] as number[], plain: [] as number[] };
  for (let round = 0; round <= rounds; round++) {
    for (const side of ["peer", "plain"] as const) {
      for (let call = 0; call < calls; call++) {
        const ms = await timed(() => sides[side].unary.cordon({}));
        if (round > 0) unary[side].push(ms); // the first warms up
      }
      const ms = await timed(async () => {
        for await (const _ of sides[side].stream.streamLogs({}));
      });
      if (round > 0) rate[side].push(STREAM_MIB / ms * 1000);
    }
  }
  const dials: number[] = [];
  const keys = derivePeerKeys([TEST_KEY]);
  for (let n = 0; n < handshakes; n++) {
    const startMs = performance.now();
    const socket = await dialPeer(b.address, { nodeId: `c${n}`, keys, protocol: PROTOCOL.calls });
    dials.push(performance.now() - startMs);
    socket.destroy();
  }
  const row = (title: string, samples: number[], digits = 2) => {
    const values = [median(samples), quantile(samples, 0.1), quantile(samples, 0.9)];
    return `| ${[title, ...values.map((value) => value.toFixed(digits))].join(" | ")} |`;
  };
  const ratio = (of: { peer: number[]; plain: number[] }) => (median(of.peer) / median(of.plain)).toFixed(2);
  return [
    `${machineFacts()}; ${rounds} rounds of ${calls} calls and ${STREAM_MIB} MiB on each side in turns, ` +
    `${handshakes} connections`,
    "",
    "| | median | p10 | p90 |",
    "|---|---|---|---|",
    row("unary call between nodes, ms", unary.peer),
    row("the same in the clear (h2c), ms", unary.plain),
    row("stream between nodes, MiB/s", rate.peer, 0),
    row("the same in the clear, MiB/s", rate.plain, 0),
    row("connection: TCP, TLS 1.3, proofs both ways, ms", dials),
    "",
    `Ratio of the medians: unary ${ratio(unary)}, stream ${ratio(rate)}.`,
  ].join("\n");
}

async function timed(run: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await run();
  return performance.now() - startMs;
}

// Alone: `deno run -A tests/bench/peer.ts`; ROUNDS changes what it does.
if (import.meta.main) {
  const { ROUNDS } = Deno.env.toObject();
  console.log(await peerBench(ROUNDS ? { rounds: Number(ROUNDS) } : {}));
}
