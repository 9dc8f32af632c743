import type { Log } from "../../runtime/log.ts";
import type { HostPort } from "../config.ts";
import type { PeerCertificate } from "../peer/mod.ts";
import { type HopEnd, hopSecret } from "../proxy/mod.ts";

/** Ports tried when the one after gossip's is taken. */
const OTHER_PORTS = 4;

/** What {@linkcode HopPort} is given. */
export interface HopPortOptions {
  nodeId: string;
  proxy: HopEnd;
  /** Where gossip listens. */
  gossip: HostPort;
  certificate: PeerCertificate;
  clusterKeys: () => readonly Uint8Array[];
  log: Log;
}

/**
 * Where the proxy's workers take requests from other nodes: the port after gossip's, else another that is free, which the
 * members learn by a tag.
 */
export class HopPort {
  readonly #options: HopPortOptions;
  /** For the tag; absent until it is open. */
  port: number | undefined;

  constructor(options: HopPortOptions) {
    this.#options = options;
  }

  /** Opens it. Without one, other nodes cannot pass requests on to this node's workloads. */
  async open(): Promise<void> {
    const { gossip, log } = this.#options;
    const reasons: string[] = [];
    for (let tries = 0; tries <= OTHER_PORTS; tries++) {
      const port = tries === 0 && gossip.port < 65_535 ? gossip.port + 1 : freePort(gossip.host);
      try {
        await this.#set(port);
        this.port = port;
        return;
      } catch (error) {
        reasons.push(error instanceof Error ? error.message : String(error));
      }
    }
    log.error("other nodes cannot pass requests on to this one: no port for them could be opened", {
      reasons,
    });
  }

  /** The cluster's keys are others now. */
  renew(): void {
    const { port } = this;
    if (port === undefined) return;
    this.#set(port).catch((error) => {
      this.#options.log.error("cannot renew what proves membership to other proxies", {
        error: String(error),
      });
    });
  }

  #set(port: number): Promise<void> {
    const { nodeId, proxy, gossip, certificate, clusterKeys } = this.#options;
    const keys = clusterKeys();
    return proxy.setHop({
      node: nodeId,
      certificate: { cert: certificate.certPem, key: certificate.keyPem },
      secrets: keys.length === 0 ? [hopSecret()] : keys.map(hopSecret),
      bindHosts: [gossip.host],
      port,
    });
  }
}

function freePort(hostname: string): number {
  using listener = Deno.listen({ hostname, port: 0 });
  return listener.addr.port;
}
