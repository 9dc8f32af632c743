import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { WholeStreams } from "../agent/api/whole_streams.ts";
import { ClusterService } from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { BeaconService } from "../proto/gen/hypercore/v1/beacon_pb.ts";
import { IdentityService } from "../proto/gen/hypercore/v1/identity_pb.ts";
import { ClusterAdminService } from "../proto/gen/hypercore/v1/cluster_pb.ts";
import { ImageService } from "../proto/gen/hypercore/v1/image_pb.ts";
import { NodeService } from "../proto/gen/hypercore/v1/node_pb.ts";
import { PolicyService } from "../proto/gen/hypercore/v1/policy_pb.ts";
import { ProofService } from "../proto/gen/hypercore/v1/proof_pb.ts";
import { WorkloadService } from "../proto/gen/hypercore/v1/workload_pb.ts";
import { CommandError, exitCode, UsageError } from "./exit.ts";
import type { Io } from "./io.ts";
import { type ClientOptions, DEFAULT_API } from "./options.ts";
import { formatHostPort, isLoopback, parseHostPort } from "./parse/host_port.ts";
import { printable } from "./parse/values.ts";

/** File in the agent's data directory that holds the API token. */
export const TOKEN_FILE = "token";
/** Time a call that should answer at once may take, ms. */
export const CALL_TIMEOUT_MS = 60_000;
/** Interval of HTTP/2 pings on a call that may be silent for long, ms. */
const PING_INTERVAL_MS = 30_000;

/** Of an agent's message, what is shown. */
const MAX_MESSAGE = 4_000;

/** The agent's services. */
export interface Api {
  cluster: Client<typeof ClusterService>;
  workloads: Client<typeof WorkloadService>;
  images: Client<typeof ImageService>;
  node: Client<typeof NodeService>;
  identity: Client<typeof IdentityService>;
  beacons: Client<typeof BeaconService>;
  proofs: Client<typeof ProofService>;
  admin: Client<typeof ClusterAdminService>;
  policies: Client<typeof PolicyService>;
  /** How messages name the agent. */
  address: string;
}

/** Connects to the agent that the options name; nothing is sent before the first call. Throws {@linkcode UsageError}. */
export function connectApi(options: ClientOptions, io: Io): Api {
  const url = apiUrl(options);
  const token = options.token ?? (isLoopback(bareHost(url)) ? tokenFromFile(options.dataDir, io) : undefined);
  const transport: Transport = createGrpcTransport({
    baseUrl: url.origin,
    interceptors: token === undefined ? [] : [bearer(token)],
    sessionManager: new WholeStreams(
      url.origin,
      { pingIntervalMs: PING_INTERVAL_MS },
      options.apiCa === undefined ? {} : { ca: readCa(options.apiCa, io) },
    ),
  });
  return {
    cluster: createClient(ClusterService, transport),
    workloads: createClient(WorkloadService, transport),
    images: createClient(ImageService, transport),
    node: createClient(NodeService, transport),
    identity: createClient(IdentityService, transport),
    beacons: createClient(BeaconService, transport),
    proofs: createClient(ProofService, transport),
    admin: createClient(ClusterAdminService, transport),
    policies: createClient(PolicyService, transport),
    address: url.host,
  };
}

/** The URL of the agent's API. An address that means "all" is reached on loopback. */
export function apiUrl(options: Pick<ClientOptions, "api" | "grpcBindAddr">): URL {
  if (options.api !== undefined && options.api.includes("://")) {
    if (!URL.canParse(options.api)) throw new UsageError(`--api: "${printable(options.api)}" is not a URL`);
    const url = new URL(options.api);
    if (url.protocol !== "http:" && url.protocol !== "https:") {
      throw new UsageError(`--api: "${printable(options.api)}" is not an http or https URL`);
    }
    if (url.pathname !== "/" || url.search !== "" || url.username !== "") {
      throw new UsageError(`--api: "${printable(options.api)}" has more than scheme, host and port`);
    }
    return url;
  }
  try {
    const { host, port } = parseHostPort(options.api ?? options.grpcBindAddr ?? DEFAULT_API);
    const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
    return new URL(`http://${formatHostPort({ host: reachable, port })}`);
  } catch (error) {
    throw new UsageError(`--api: ${(error as Error).message}`, { cause: error });
  }
}

/** One line for what went wrong with a call, and the exit code. */
export function apiError(
  action: string,
  api: Api,
  error: unknown,
  code: number = exitCode.failed,
): CommandError {
  if (error instanceof CommandError) return error;
  const failure = ConnectError.from(error);
  const reason = reasonOf(failure, api);
  // An agent that says in its own words what it cannot do needs no second introduction.
  return new CommandError(reason.startsWith("Cannot ") ? reason : `${action}: ${reason}`, code, {
    cause: error,
  });
}

function reasonOf(error: ConnectError, api: Api): string {
  const text = printable(error.rawMessage, MAX_MESSAGE);
  // The agent's own words, which may be about connections of its own.
  if (text.startsWith("Cannot ") && error.code !== Code.Unauthenticated) return text;
  if (/ECONNREFUSED|connection refused/i.test(text)) {
    return `no agent answers at ${api.address}; start one with "hypercore agent" or name another with --api`;
  }
  if (/ENOTFOUND|EAI_AGAIN|failed to lookup/i.test(text)) return `the host of ${api.address} is not known`;
  if (/ECONNRESET|socket hang up|closed|GOAWAY/i.test(text) && error.code !== Code.InvalidArgument) {
    return `the connection to ${api.address} broke: ${text}`;
  }
  switch (error.code) {
    case Code.Unauthenticated:
      return `${api.address} wants a valid token: --token, HYPERCORE_TOKEN, or run as the user the agent runs as`;
    case Code.Unimplemented:
      return `the agent at ${api.address} does not offer this call (another version?)`;
    case Code.DeadlineExceeded:
      return `${api.address} did not answer in time`;
    default:
      return text === "" ? `${api.address} answered "${Code[error.code]}"` : text;
  }
}

function bearer(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

function tokenFromFile(dataDir: string, io: Io): string | undefined {
  try {
    const token = io.readTextFile(`${dataDir}/${TOKEN_FILE}`).trim();
    return token === "" ? undefined : token;
  } catch (error) {
    // Without it the call goes out bare, and the agent's answer says what is missing.
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) {
      return undefined;
    }
    throw new CommandError(
      `Cannot read the token "${dataDir}/${TOKEN_FILE}": ${(error as Error).message}`,
      1,
      {
        cause: error,
      },
    );
  }
}

function readCa(path: string, io: Io): string {
  try {
    return io.readTextFile(path);
  } catch (error) {
    throw new UsageError(`--api-ca: cannot read "${path}": ${(error as Error).message}`, { cause: error });
  }
}

function bareHost(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1");
}
