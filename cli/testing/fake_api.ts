import { createServer, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { AddressInfo } from "node:net";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { translateErrors } from "../../agent/api/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { ClusterService } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { ClusterAdminService } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { BeaconService } from "../../proto/gen/hypercore/v1/beacon_pb.ts";
import { IdentityService } from "../../proto/gen/hypercore/v1/identity_pb.ts";
import { ImageService } from "../../proto/gen/hypercore/v1/image_pb.ts";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { PolicyService } from "../../proto/gen/hypercore/v1/policy_pb.ts";
import { WorkloadService } from "../../proto/gen/hypercore/v1/workload_pb.ts";

/** What the agent of a test answers; a call that is not here is unimplemented. */
export interface FakeApi {
  token?: string;
  cluster?: Partial<ServiceImpl<typeof ClusterService>>;
  workloads?: Partial<ServiceImpl<typeof WorkloadService>>;
  images?: Partial<ServiceImpl<typeof ImageService>>;
  admin?: Partial<ServiceImpl<typeof ClusterAdminService>>;
  identity?: Partial<ServiceImpl<typeof IdentityService>>;
  beacons?: Partial<ServiceImpl<typeof BeaconService>>;
  proofs?: Partial<ServiceImpl<typeof ProofService>>;
  policies?: Partial<ServiceImpl<typeof PolicyService>>;
}

/** Serves the API on a free loopback port until disposed. */
export async function serveFakeApi(fake: FakeApi): Promise<{ address: string } & AsyncDisposable> {
  const sessions = new Set<ServerHttp2Session>();
  const server: Http2Server = createServer(connectNodeAdapter({
    interceptors: [translateErrors(silentLog), (next) => (request) => {
      if (fake.token !== undefined && request.header.get("authorization") !== `Bearer ${fake.token}`) {
        throw new ConnectError("a valid token is needed", Code.Unauthenticated);
      }
      return next(request);
    }],
    routes(router) {
      router.service(ClusterService, fake.cluster ?? {});
      router.service(WorkloadService, fake.workloads ?? {});
      router.service(ImageService, fake.images ?? {});
      router.service(ClusterAdminService, fake.admin ?? {});
      router.service(IdentityService, fake.identity ?? {});
      router.service(BeaconService, fake.beacons ?? {});
      router.service(ProofService, fake.proofs ?? {});
      router.service(PolicyService, fake.policies ?? {});
    },
  }));
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.destroy();
      await closed;
    },
  };
}
