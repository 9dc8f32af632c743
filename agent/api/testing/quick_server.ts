import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { WorkloadService } from "../../../proto/gen/hypercore/v1/workload_pb.ts";

/** A program: serves logs of four messages at once and their end, and prints its port. */
const server = http2.createServer(connectNodeAdapter({
  routes: (router) => {
    router.service(WorkloadService, {
      async *streamLogs() {
        for (let i = 0; i < 4; i++) yield await Promise.resolve({ data: new Uint8Array(2) });
      },
    });
  },
}));
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port));
