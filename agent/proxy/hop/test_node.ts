import assert from "node:assert/strict";
import { type HopIdentity, openProxy, type PeerUpstream, type Proxy, type ProxyOptions } from "../mod.ts";
import type { LocalUpstream, Route, StaleRoute, Upstream } from "../mod.ts";
import { freePort } from "../../../tests/support/free_port.ts";
import { recordingLog } from "../test_support.ts";
import { fingerprintOf, HOP_SERVER_NAME, hopSecret } from "./protocol.ts";

/** A certificate as nodes have it, PEM. */
export async function makeNodeCertificate(): Promise<{ cert: string; key: string }> {
  const { success, stdout, stderr } = await new Deno.Command("openssl", {
    args: [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node".split(
        " ",
      ),
      ...[
        "-addext",
        `subjectAltName=DNS:${HOP_SERVER_NAME}`,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
      ],
      ...["-keyout", "-", "-out", "-"],
    ],
  }).output();
  if (!success) throw new Error(`Cannot make a certificate: ${new TextDecoder().decode(stderr)}`);
  const text = new TextDecoder().decode(stdout);
  const part = (what: string) =>
    new RegExp(`-----BEGIN ${what}-----[^]*-----END ${what}-----\n`).exec(text)![0];
  return { cert: part("CERTIFICATE"), key: part("PRIVATE KEY") };
}

export interface TestNodeOptions extends Partial<ProxyOptions> {
  node?: string;
  /** Each node of a test has an address of its own on the loopback interface. */
  address?: string;
  /** Host port of the workload; the same on all nodes. */
  port?: number;
  secrets?: string[];
  /** The node has no identity among proxies until told. */
  alone?: boolean;
}

/** A node as others see it: a proxy that takes hops. */
export class TestNode implements AsyncDisposable {
  #disposed = false;

  private constructor(
    readonly proxy: Proxy,
    readonly identity: HopIdentity,
    /** Of the workloads. */
    readonly port: number,
    /** What the proxy reported. */
    readonly stale: readonly StaleRoute[],
  ) {}

  static async open(options: TestNodeOptions = {}): Promise<TestNode> {
    const { node = "node", address = "127.0.0.1", port = freePort(), alone = false, ...rest } = options;
    const { secrets = [hopSecret(new Uint8Array(32))] } = rest;
    const stale: StaleRoute[] = [];
    const proxy = await openProxy({
      bindHosts: [address],
      workers: 1,
      log: recordingLog(),
      onStale: (route) => stale.push(route),
      ...rest,
      limits: { shutdownGraceMs: 200, staleRouteWaitMs: 0, ...rest.limits },
    });
    const certificate = await makeNodeCertificate();
    const identity = { node, certificate, secrets, bindHosts: [address], port: freePort() };
    if (!alone) await proxy.setHop(identity);
    return new TestNode(proxy, identity, port, stale);
  }

  /** As the others' route tables have it. */
  asUpstream(changes: Partial<PeerUpstream> = {}): PeerUpstream {
    const { node, port, certificate, bindHosts: [hostname] } = this.identity;
    const fingerprint = fingerprintOf(certificate.cert);
    return { kind: "peer", node, hostname, port, fingerprint, ...changes };
  }

  /** Serves the workload `app` by these ways. */
  async serve(upstream: Upstream, ...fallbacks: Upstream[]): Promise<void> {
    assert.deepEqual(await this.proxy.apply([this.route(upstream, ...fallbacks)]), []);
  }

  route(upstream: Upstream, ...fallbacks: Upstream[]): Route {
    return { id: "app", aliases: ["web"], hostPort: this.port, upstream, fallbacks };
  }

  /** Once. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await this.proxy[Symbol.asyncDispose]();
  }
}

export function local(upstream: { port: number }): LocalUpstream {
  return { kind: "tcp", hostname: "127.0.0.1", port: upstream.port };
}

/** Two nodes: `a` leads to `b`, which runs the workload. */
export async function pair(upstream: { port: number }, options: TestNodeOptions = {}) {
  await using stack = new AsyncDisposableStack();
  const port = freePort();
  const a = stack.use(await TestNode.open({ node: "a", address: "127.0.0.1", port, ...options }));
  const b = stack.use(await TestNode.open({ node: "b", address: "127.0.0.2", port, ...options }));
  await b.serve(local(upstream));
  await a.serve(b.asUpstream());
  const owned = stack.move();
  return { a, b, port, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Tries until it holds; the test's own time-out is the deadline. */
export async function eventually(holds: () => Promise<boolean> | boolean): Promise<void> {
  while (!await holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}
