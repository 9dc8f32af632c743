import type { AgentConfig, HostPort } from "../config.ts";
import { isLoopbackName } from "./guard.ts";

/** Refuses to listen in the clear where others can reach it. Throws an Error that names the address. */
export function checkBind(address: HostPort, config: Pick<AgentConfig, "apiTls" | "insecure">): void {
  if (isLoopbackName(address.host) || config.apiTls !== undefined || config.insecure) return;
  throw new Error(
    `Cannot listen on "${address.host}:${address.port}": an address other than loopback needs a certificate ` +
      "(--api-tls-cert, --api-tls-key), or --insecure",
  );
}
