import { AbortScope } from "../../runtime/abort_scope.ts";
import type { RegistryEndpoint } from "./registry_endpoint.ts";

/** Longest exchange with a registry, milliseconds. */
export const REGISTRY_CALL_MS = 5_000;
/** Longest answer that is read, bytes. */
export const MAX_REGISTRY_ANSWER_BYTES = 65_536;

/** An external registry of beacons. Both throw an Error that says why, also when the signal aborts. */
export interface RegistryClient {
  /** Whether it is there. */
  health(signal: AbortSignal): Promise<void>;
  /** Makes this node known; what is sent is JSON. */
  register(registration: string, signal: AbortSignal): Promise<void>;
}

/** The client for an endpoint. */
export function registryClient(endpoint: RegistryEndpoint): RegistryClient {
  return endpoint.kind === "http" ? httpClient(endpoint.base) : tcpClient(endpoint);
}

/** `GET /health` and `POST /register`; any status of 2xx is a yes. */
function httpClient(base: string): RegistryClient {
  const call = async (path: string, init: RequestInit, signal: AbortSignal) => {
    using scope = new AbortScope([signal], { timeoutMs: REGISTRY_CALL_MS });
    try {
      const response = await fetch(`${base}${path}`, { ...init, redirect: "manual", signal: scope.signal });
      await response.body?.cancel();
      if (!response.ok) throw new Error(`it answers ${path} with status ${response.status}`);
    } catch (error) {
      throw whyNot(error, { scope, signal });
    }
  };
  return {
    health: (signal) => call("/health", {}, signal),
    register: (body, signal) =>
      call("/register", { method: "POST", headers: { "content-type": "application/json" }, body }, signal),
  };
}

/** One connection an exchange: a line of JSON each way, and `{"ok":true}` is a yes. */
function tcpClient({ host, port }: { host: string; port: number }): RegistryClient {
  const call = async (line: string, signal: AbortSignal) => {
    using scope = new AbortScope([signal], { timeoutMs: REGISTRY_CALL_MS });
    try {
      const answer = JSON.parse(await exchange({ host, port }, line, scope.signal));
      if (answer?.ok !== true) {
        const reason = typeof answer?.error === "string" ? answer.error.slice(0, 200) : "it does not say why";
        throw new Error(`it refused: ${reason}`);
      }
    } catch (error) {
      throw whyNot(error, { scope, signal });
    }
  };
  return {
    health: (signal) => call('{"type":"health"}', signal),
    register: (registration, signal) => call(`{"type":"register","registration":${registration}}`, signal),
  };
}

async function exchange(
  address: { hostname?: string; host: string; port: number },
  line: string,
  signal: AbortSignal,
): Promise<string> {
  // Its signal ends a connect that hangs as well.
  using connection = await Deno.connect({ hostname: address.host, port: address.port, signal });
  const close = () => {
    try {
      connection.close();
    } catch {
      // Closed already.
    }
  };
  signal.addEventListener("abort", close, { once: true });
  try {
    const bytes = new TextEncoder().encode(`${line}\n`);
    for (let sent = 0; sent < bytes.length;) sent += await connection.write(bytes.subarray(sent));
    const answer = new Uint8Array(MAX_REGISTRY_ANSWER_BYTES);
    for (let length = 0; length < answer.length;) {
      const read = await connection.read(answer.subarray(length));
      const end = answer.subarray(length, length + (read ?? 0)).indexOf(10);
      if (end >= 0) return new TextDecoder().decode(answer.subarray(0, length + end));
      if (read === null) throw new Error("it closed the connection without an answer");
      length += read;
    }
    throw new Error(`its answer is longer than ${MAX_REGISTRY_ANSWER_BYTES} bytes`);
  } finally {
    signal.removeEventListener("abort", close);
  }
}

function whyNot(error: unknown, { scope, signal }: { scope: AbortScope; signal: AbortSignal }): Error {
  if (scope.signal.aborted && !signal.aborted) return new Error(`no answer within ${REGISTRY_CALL_MS} ms`);
  return error instanceof Error ? error : new Error(String(error));
}
