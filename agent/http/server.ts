import type { Hono } from "hono";
import type { Log } from "../../runtime/log.ts";
import type { HostPort, TlsFiles } from "../config.ts";
import { CertificateFiles } from "../proxy/certificate.ts";
import type { Bindings } from "./app.ts";

/** The HTTP port, open. */
export interface HttpListener extends AsyncDisposable {
  /** Where it listens; the real port when 0 was asked for. */
  readonly address: HostPort;
}

/** How {@linkcode listenHttp} listens. */
export interface HttpListenerOptions {
  address: HostPort;
  /** Serves TLS; changed files are taken up while running. */
  tls?: TlsFiles;
  log: Log;
  certificatePollMs?: number;
}

/** Time that requests in flight get when the agent stops, milliseconds. */
const CLOSE_MS = 1_000;
/** How often the certificate's files are looked at, milliseconds. */
const CERTIFICATE_POLL_MS = 2_000;

/** Serves the HTTP API. Throws an Error that names the address. */
export async function listenHttp(
  app: Hono<{ Bindings: Bindings }>,
  options: HttpListenerOptions,
): Promise<HttpListener> {
  const { address: { host }, tls, log } = options;
  await using stack = new AsyncDisposableStack();
  const closing = new AbortController();
  const files = tls && stack.use(
    await CertificateFiles.open({
      ...tls,
      pollMs: options.certificatePollMs ?? CERTIFICATE_POLL_MS,
      onChange: (pair) => renew(pair),
      onRefused: (error) =>
        log.error("new certificate of the HTTP API refused, the old one stays", { error: error.message }),
    }),
  );
  let server = serve(options.address.port, files?.pair);
  const { port } = server.addr as Deno.NetAddr;
  const endings = new Set<Promise<void>>();
  const owned = stack.move();
  return {
    address: { host, port },
    async [Symbol.asyncDispose]() {
      await owned.disposeAsync();
      const timer = setTimeout(() => closing.abort(), CLOSE_MS);
      await Promise.all([server.shutdown(), ...endings]);
      clearTimeout(timer);
    },
  };

  function serve(onPort: number, pair?: { cert: string; key: string }): Deno.HttpServer {
    try {
      // A certificate is taken up by a second server beside the first, so the two must be able to share the port.
      const shared = pair && { ...pair, reusePort: true };
      return Deno.serve(
        { hostname: host, port: onPort, signal: closing.signal, onListen() {}, ...shared },
        (request, { remoteAddr }) => {
          const remoteAddress = remoteAddr.transport === "tcp" ? remoteAddr.hostname : "";
          return app.fetch(request, { remoteAddress, signal: request.signal });
        },
      );
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`Cannot listen on "${host}:${onPort}": ${reason}`, { cause: error });
    }
  }

  function renew(pair: { cert: string; key: string }): void {
    const old = server;
    server = serve(port, pair);
    log.info("certificate of the HTTP API renewed", { file: tls!.certFile });
    const ending = old.shutdown().finally(() => endings.delete(ending));
    endings.add(ending);
  }
}
