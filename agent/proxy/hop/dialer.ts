import { once } from "node:events";
import tls from "node:tls";
import { Certificates } from "./certificates.ts";
import type { HopIdentity, PeerUpstream } from "./contract.ts";
import {
  CLAIM_ACCEPTED,
  CLAIM_REFUSED,
  encodeClaim,
  GREETING_BYTES,
  HOP_ALPN,
  HOP_MUX_ALPN,
  HOP_SERVER_NAME,
  parseFingerprint,
  parseGreeting,
} from "./protocol.ts";
import { closeQuietly, writeAll } from "../sink.ts";

/** The node took the connection and did not take us for a member. */
export class ClaimRefused extends Error {
  override readonly name = "ClaimRefused";
}

/** Makes connections to other nodes' proxies, ready for a request. */
export class HopDialer {
  #identity?: HopIdentity;
  readonly #certificates = new Certificates();

  setIdentity(identity: HopIdentity): void {
    this.#identity = identity;
  }

  /**
   * Connects, authenticates the node by its pinned certificate, then proves membership. `hasStreams`: the connection is for a
   * session with many of them; otherwise for one request after the other. Throws an Error that says why not,
   * {@linkcode ClaimRefused} when the node's keys are others.
   */
  async dial(peer: PeerUpstream, signal: AbortSignal): Promise<{ conn: Deno.TlsConn; hasStreams: boolean }> {
    const identity = this.#identity;
    if (!identity) throw new Error("this node has no identity among proxies yet");
    const fingerprint = parseFingerprint(peer.fingerprint);
    if (!fingerprint) throw new Error("the pinned fingerprint is malformed");
    const { hostname, port } = peer;
    const certificate = this.#certificates.get(fingerprint) ??
      await this.#learnCertificate({ hostname, port, fingerprint }, signal);
    const tcp = await Deno.connect({ hostname, port, autoSelectFamily: false, signal });
    let conn: Deno.Conn = tcp;
    const onAbort = () => closeQuietly(conn);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      tcp.setNoDelay(true);
      const secure = await Deno.startTls(tcp, {
        hostname: HOP_SERVER_NAME,
        caCerts: [certificate],
        alpnProtocols: [HOP_MUX_ALPN, HOP_ALPN],
      });
      conn = secure;
      signal.throwIfAborted();
      const { alpnProtocol } = await secure.handshake();
      if (alpnProtocol !== HOP_MUX_ALPN && alpnProtocol !== HOP_ALPN) {
        throw new Error("the node takes no hops there");
      }
      await claim(secure, identity, fingerprint);
      signal.throwIfAborted();
      return { conn: secure, hasStreams: alpnProtocol === HOP_MUX_ALPN };
    } catch (error) {
      closeQuietly(conn);
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** A handshake in which nothing is sent, for the certificate alone. */
  async #learnCertificate(
    { hostname, port, fingerprint }: { hostname: string; port: number; fingerprint: string },
    signal: AbortSignal,
  ): Promise<string> {
    const socket = tls.connect({
      host: hostname,
      port,
      servername: HOP_SERVER_NAME,
      ALPNProtocols: [HOP_MUX_ALPN, HOP_ALPN],
      rejectUnauthorized: false, // compared below
    });
    try {
      await once(socket, "secureConnect", { signal });
      return this.#certificates.learn(fingerprint, socket.getPeerCertificate().raw);
    } finally {
      socket.on("error", () => {}); // of a socket that nobody waits for any more
      socket.destroy();
    }
  }
}

async function claim(conn: Deno.Conn, identity: HopIdentity, serverFingerprint: string): Promise<void> {
  const nonce = parseGreeting(await readExactly(conn, GREETING_BYTES));
  if (!nonce) throw new Error("the node does not greet as one that takes hops");
  const { node, secrets } = identity;
  if (secrets.length === 0) throw new Error("this node has no secret to prove its membership with");
  await writeAll(conn, encodeClaim({ nonce, serverFingerprint, node }, secrets[0]));
  const [verdict] = await readExactly(conn, 1);
  if (verdict === CLAIM_REFUSED) throw new ClaimRefused("the node does not take this one for a member");
  if (verdict !== CLAIM_ACCEPTED) throw new Error("the node's verdict is malformed");
}

async function readExactly(conn: Deno.Conn, bytes: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(bytes);
  for (let at = 0; at < bytes;) {
    const count = await conn.read(buffer.subarray(at));
    if (count === null) throw new Error("the node closed the connection in the handshake");
    at += count;
  }
  return buffer;
}
